"""What people ask for and cannot have, and what they can have instead, for ``edit_lexicon.py``."""

from midillm_jax.music.edit_places import NUMBER

NOBODYS = "a file does not say whose notes these are; name an instrument or a track"
"""The remark on what is no part but can be added, such as a solo."""
NOT_DONE: tuple[tuple[str, str], ...] = (
    (
        "a file does not say which bars these are; name them, such as bars 9 to 16",
        r"(?:(?:first|second|third|last|final|next) )?(?:pre-?chorus|chorus(?:es)?|verses?|intro(?:duction)?|outro"
        r"|bridge|refrain|hook|coda|interlude|ending|breakdown|build-?up|middle eight)",
    ),
    (
        "keys are not known here; say the interval, such as up a fourth",
        r"(?:the )?(?:key of )?[a-g](?:#|b|[ -]flat|[ -]sharp)?[ -](?:major|minor)|another key"
        r"|(?:major|minor)(?: key)?",
    ),
    (
        "places are bars, seconds and shares such as the last third",
        rf"beats?(?: {NUMBER})?|middle|every other|every (?:second|third|fourth)",
    ),
    ("say what is to be done, without conditions", r"if|when|unless|whenever"),
    ("say what is to be done, such as: mute the drums, make the piano louder", r"is|are|was|were"),
    (
        "only notes, instruments, tempo and velocity can be edited",
        r"db|decibels?|reverb|echo|delay|panning|pan|eq|compression|effects?|vibrato",
    ),
    (
        "onsets and lengths are not changed; bars can be written anew, such as: rewrite bars 9-16 with a swing feel",
        r"quanti[sz]e|humani[sz]e|swing|swung|groove|shuffle|legato|staccato",
    ),
    (
        "bars are not moved, repeated or cut; that is for a sequencer",
        r"loop|repeat|copy|paste|reverse|invert|split|merge|extend|shorten|stretch|crop|trim",
    ),
    (
        "notes get louder or softer by one measure; write louder, or velocity to 80",
        r"fade[ -]?(?:in|out)|fade|crescendo|diminuendo|forte|fortissimo|pianissimo|accents?",
    ),
    (
        "a drum kit is one part: write drums",
        r"snares?|kicks?|kick drum|bass drum|hi-?hats?|hats?|cymbals?|toms|crash|claps?",
    ),
    (NOBODYS, r"(?:main |vocal )?(?:melody|tune|theme)(?: lines?)?|solos?|harmony|chords?|accompaniment|lead"),
)
"""What can be had instead, and a pattern of the words for what is asked."""
