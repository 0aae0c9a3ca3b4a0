"""MIDI bytes, notes, AMT tokens and the grammar over them: nothing here knows of models or files."""
