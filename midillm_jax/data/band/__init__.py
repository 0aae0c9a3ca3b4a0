"""The small band that plays by rule: its tables, its rules and its words. data/demo.py writes what it plays."""
