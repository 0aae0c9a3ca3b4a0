"""What a row's columns ask for."""

from midillm_jax.data.tonality import Key
from midillm_jax.evaluation.asked import Asked, from_columns, parse_key


def test_every_column() -> None:
    row = {
        "instrument_numbers_sorted": [25, 24, 73, 128],
        "drums": True,
        "tempo": 96,
        "key": "Eb minor",
        "time_signature": "6/8",
        "duration": 40,
    }
    guitars, flute = frozenset({24, 25}), frozenset({73})
    assert from_columns(row) == Asked((guitars, flute), True, (96, 96), Key(3, "minor"), (6, 8), (40, 40))


def test_what_is_not_there_is_not_asked() -> None:
    assert from_columns({"location": "a.mid"}) == Asked()
    assert from_columns({"tempo": "", "key": None, "time_signature": None}) == Asked()


def test_midicaps_rows_have_no_column_for_drums() -> None:
    assert from_columns({"instrument_numbers_sorted": [0, 128]}).drums is True
    assert from_columns({"instrument_numbers_sorted": [0]}).drums is False
    assert from_columns({"instrument_numbers_sorted": []}).instruments == ()


def test_spellings_of_a_key() -> None:
    assert parse_key("C# major") == parse_key("Db major") == Key(1, "major")
    assert parse_key("Cb major") == Key(11, "major")
    assert parse_key("H minor") is parse_key("A") is None
