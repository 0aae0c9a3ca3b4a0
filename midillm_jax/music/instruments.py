"""Names of the 129 programs: General MIDI's own, the words a caption uses, and their families."""

from midillm_jax.music.vocab import DRUM_PROGRAM, PROGRAMS

_INSTRUMENTS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "piano",
        (
            ("Acoustic Grand Piano", "piano"),
            ("Bright Acoustic Piano", "piano"),
            ("Electric Grand Piano", "electric piano"),
            ("Honky-tonk Piano", "honky-tonk piano"),
            ("Electric Piano 1", "electric piano"),
            ("Electric Piano 2", "electric piano"),
            ("Harpsichord", "harpsichord"),
            ("Clavi", "clavinet"),
        ),
    ),
    (
        "chromatic percussion",
        (
            ("Celesta", "celesta"),
            ("Glockenspiel", "glockenspiel"),
            ("Music Box", "music box"),
            ("Vibraphone", "vibraphone"),
            ("Marimba", "marimba"),
            ("Xylophone", "xylophone"),
            ("Tubular Bells", "tubular bells"),
            ("Dulcimer", "dulcimer"),
        ),
    ),
    (
        "organ",
        (
            ("Drawbar Organ", "hammond organ"),
            ("Percussive Organ", "percussive organ"),
            ("Rock Organ", "rock organ"),
            ("Church Organ", "church organ"),
            ("Reed Organ", "reed organ"),
            ("Accordion", "accordion"),
            ("Harmonica", "harmonica"),
            ("Tango Accordion", "tango accordion"),
        ),
    ),
    (
        "guitar",
        (
            ("Acoustic Guitar (nylon)", "acoustic guitar"),
            ("Acoustic Guitar (steel)", "acoustic guitar"),
            ("Electric Guitar (jazz)", "electric guitar"),
            ("Electric Guitar (clean)", "clean electric guitar"),
            ("Electric Guitar (muted)", "muted electric guitar"),
            ("Overdriven Guitar", "overdriven guitar"),
            ("Distortion Guitar", "distortion guitar"),
            ("Guitar Harmonics", "guitar harmonics"),
        ),
    ),
    (
        "bass",
        (
            ("Acoustic Bass", "acoustic bass"),
            ("Electric Bass (finger)", "electric bass"),
            ("Electric Bass (pick)", "electric bass"),
            ("Fretless Bass", "fretless bass"),
            ("Slap Bass 1", "slap bass"),
            ("Slap Bass 2", "slap bass"),
            ("Synth Bass 1", "synth bass"),
            ("Synth Bass 2", "synth bass"),
        ),
    ),
    (
        "strings",
        (
            ("Violin", "violin"),
            ("Viola", "viola"),
            ("Cello", "cello"),
            ("Contrabass", "contrabass"),
            ("Tremolo Strings", "tremolo strings"),
            ("Pizzicato Strings", "pizzicato strings"),
            ("Orchestral Harp", "harp"),
            ("Timpani", "timpani"),
        ),
    ),
    (
        "ensemble",
        (
            ("String Ensemble 1", "string ensemble"),
            ("String Ensemble 2", "string ensemble"),
            ("Synth Strings 1", "synth strings"),
            ("Synth Strings 2", "synth strings"),
            ("Choir Aahs", "choir"),
            ("Voice Oohs", "voice"),
            ("Synth Voice", "synth voice"),
            ("Orchestra Hit", "orchestra hit"),
        ),
    ),
    (
        "brass",
        (
            ("Trumpet", "trumpet"),
            ("Trombone", "trombone"),
            ("Tuba", "tuba"),
            ("Muted Trumpet", "muted trumpet"),
            ("French Horn", "french horn"),
            ("Brass Section", "brass section"),
            ("Synth Brass 1", "synth brass"),
            ("Synth Brass 2", "synth brass"),
        ),
    ),
    (
        "reed",
        (
            ("Soprano Sax", "soprano saxophone"),
            ("Alto Sax", "alto saxophone"),
            ("Tenor Sax", "tenor saxophone"),
            ("Baritone Sax", "baritone saxophone"),
            ("Oboe", "oboe"),
            ("English Horn", "english horn"),
            ("Bassoon", "bassoon"),
            ("Clarinet", "clarinet"),
        ),
    ),
    (
        "pipe",
        (
            ("Piccolo", "piccolo"),
            ("Flute", "flute"),
            ("Recorder", "recorder"),
            ("Pan Flute", "pan flute"),
            ("Blown Bottle", "blown bottle"),
            ("Shakuhachi", "shakuhachi"),
            ("Whistle", "whistle"),
            ("Ocarina", "ocarina"),
        ),
    ),
    (
        "synth lead",
        (
            ("Lead 1 (square)", "synth lead"),
            ("Lead 2 (sawtooth)", "synth lead"),
            ("Lead 3 (calliope)", "synth lead"),
            ("Lead 4 (chiff)", "synth lead"),
            ("Lead 5 (charang)", "synth lead"),
            ("Lead 6 (voice)", "synth lead"),
            ("Lead 7 (fifths)", "synth lead"),
            ("Lead 8 (bass + lead)", "synth lead"),
        ),
    ),
    (
        "synth pad",
        (
            ("Pad 1 (new age)", "synth pad"),
            ("Pad 2 (warm)", "synth pad"),
            ("Pad 3 (polysynth)", "synth pad"),
            ("Pad 4 (choir)", "synth pad"),
            ("Pad 5 (bowed)", "synth pad"),
            ("Pad 6 (metallic)", "synth pad"),
            ("Pad 7 (halo)", "synth pad"),
            ("Pad 8 (sweep)", "synth pad"),
        ),
    ),
    (
        "synth effects",
        (
            ("FX 1 (rain)", "synth effects"),
            ("FX 2 (soundtrack)", "synth effects"),
            ("FX 3 (crystal)", "synth effects"),
            ("FX 4 (atmosphere)", "synth effects"),
            ("FX 5 (brightness)", "synth effects"),
            ("FX 6 (goblins)", "synth effects"),
            ("FX 7 (echoes)", "synth effects"),
            ("FX 8 (sci-fi)", "synth effects"),
        ),
    ),
    (
        "world",
        (
            ("Sitar", "sitar"),
            ("Banjo", "banjo"),
            ("Shamisen", "shamisen"),
            ("Koto", "koto"),
            ("Kalimba", "kalimba"),
            ("Bagpipe", "bagpipe"),
            ("Fiddle", "fiddle"),
            ("Shanai", "shanai"),
        ),
    ),
    (
        "percussive",
        (
            ("Tinkle Bell", "tinkle bell"),
            ("Agogo", "agogo"),
            ("Steel Drums", "steel drums"),
            ("Woodblock", "woodblock"),
            ("Taiko Drum", "taiko drum"),
            ("Melodic Tom", "melodic tom"),
            ("Synth Drum", "synth drum"),
            ("Reverse Cymbal", "reverse cymbal"),
        ),
    ),
    (
        "sound effects",
        (
            ("Guitar Fret Noise", "guitar fret noise"),
            ("Breath Noise", "breath noise"),
            ("Seashore", "seashore"),
            ("Bird Tweet", "bird tweet"),
            ("Telephone Ring", "telephone ring"),
            ("Helicopter", "helicopter"),
            ("Applause", "applause"),
            ("Gunshot", "gunshot"),
        ),
    ),
    ("drums", (("Drums", "drums"),)),
)

FAMILIES: tuple[str, ...] = tuple(family for family, _ in _INSTRUMENTS)
"""The sixteen families of General MIDI (eight programs each), then "drums"."""

PROGRAM_NAMES: tuple[str, ...] = tuple(name for _, members in _INSTRUMENTS for name, _ in members)
"""General MIDI name of each of the 129 programs; the last is the drum kit."""

CAPTION_WORDS: tuple[str, ...] = tuple(word for _, members in _INSTRUMENTS for _, word in members)
"""What a caption calls each program; several programs may share a word ("synth lead")."""

PROGRAM_FAMILIES: tuple[str, ...] = tuple(family for family, members in _INSTRUMENTS for _ in members)
"""Family of each program."""
DRUM_NAMES: dict[int, str] = {
    35: "Low kick",
    36: "Kick",
    37: "Side stick",
    38: "Snare",
    39: "Clap",
    40: "Snare 2",
    41: "Floor tom",
    42: "Closed hat",
    43: "Floor tom 2",
    44: "Pedal hat",
    45: "Low tom",
    46: "Open hat",
    47: "Mid tom",
    48: "Mid tom 2",
    49: "Crash",
    50: "High tom",
    51: "Ride",
    52: "China",
    53: "Ride bell",
    54: "Tambourine",
    55: "Splash",
    56: "Cowbell",
    57: "Crash 2",
    58: "Vibraslap",
    59: "Ride 2",
    60: "High bongo",
    61: "Low bongo",
    62: "Mute conga",
    63: "High conga",
    64: "Low conga",
    65: "High timbale",
    66: "Low timbale",
    67: "High agogo",
    68: "Low agogo",
    69: "Cabasa",
    70: "Maracas",
    71: "Whistle",
    72: "Long whistle",
    73: "Guiro",
    74: "Long guiro",
    75: "Claves",
    76: "High block",
    77: "Low block",
    78: "Mute cuica",
    79: "Open cuica",
    80: "Mute triangle",
    81: "Triangle",
}
"""What General MIDI's percussion keys sound."""

assert len(PROGRAM_NAMES) == PROGRAMS
assert PROGRAM_NAMES[DRUM_PROGRAM] == "Drums"
