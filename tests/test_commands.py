import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

from midillm_jax import commands, config
from midillm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Inner:
    min_notes: int = 0


@dataclasses.dataclass(frozen=True)
class Arguments:
    model: Path
    top_p: float = 0.98
    verbose: bool = True
    inner: Inner = Inner()
    other: Inner | None = Inner()


def parse(*arguments: str) -> Arguments:
    return commands.parse(Arguments, list(arguments), prog="prog", description=None)


def test_every_form_of_an_option_is_known() -> None:
    found = parse("--model", "x", "--top_p=0.5", "--no-verbose", "--inner.min-notes", "3")
    assert found == Arguments(Path("x"), 0.5, False, Inner(3))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "x", "--top-q", "1"), "there is no option --top-q; did you mean --top-p?"),
        (("--modle", "x"), "there is no option --modle; did you mean --model?"),
        (("--inner.min-note=3",), "there is no option --inner.min-note; did you mean --inner.min-notes?"),
        (("--qqqqq",), "there is no option --qqqqq; `prog --help` lists them."),
    ],
)
def test_an_unknown_option_says_which_was_meant(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(UserError) as error:
        parse(*arguments)
    assert words in str(error.value)


def parse_stage1(*arguments: str) -> config.Config:
    options = (tyro.conf.AvoidSubcommands,)
    default = config.load("stage1.py")
    return commands.parse(
        config.Config, list(arguments), prog="prog", description=None, default=default, config=options
    )


def test_a_source_of_data_is_overridden_by_its_place() -> None:
    run = parse_stage1("--data.music.0.path", "mine", "--data.text.0.weight=2")
    assert run.data.music == (config.Source("mine"),)
    assert run.data.text == (config.Source("data/musicpile", 2.0),)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--data.music.0.pth", "no option --data.music.0.pth; did you mean --data.music.0.path?"),
        ("--data.music.12.pth", "no option --data.music.12.pth; did you mean --data.music.0.path?"),
        ("--data.music.a.path", "no option --data.music.a.path"),
        ("--data.0.music", "no option --data.0.music"),
    ],
)
def test_a_source_has_no_other_options(option: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        parse_stage1(option, "x")
    assert words in str(error.value)


def run(body: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """A process of its own whose command has this body."""
    code = (
        "import errno, os, sys\nfrom midillm_jax import commands\nfrom midillm_jax.errors import UserError\n"
        f"def command(arguments):\n    {body}\ncommands.run(command, resumes='resumes' in sys.argv)"
    )
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_a_user_error_is_one_sentence_and_code_2() -> None:
    done = run("raise UserError('x.mid: found this, expected that.')")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: x.mid: found this, expected that.\n")


def test_traceback_is_shown_when_asked_for_and_is_no_argument_of_the_command() -> None:
    done = run("print(arguments); raise UserError('found this')", "a", "--traceback", "b")
    assert done.stdout == "['a', 'b']\n"
    assert "Traceback (most recent call last)" in done.stderr


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import midillm_jax.nothing", "ModuleNotFoundError"),
        ("import grain.nothing", "ModuleNotFoundError"),  # grain is there
        ("sys.modules['jax'] = None; import jax", "ModuleNotFoundError"),  # no plain installation lacks it
        ("raise OSError('no file is to blame')", "OSError"),
    ],
)
def test_a_fault_of_ours_is_not_hidden(body: str, kind: str) -> None:
    done = run(body)
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.splitlines()[-1].startswith(kind)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("sys.modules['grain'] = None; import grain", ["the package grain;", "pip install 'midillm_jax[train]'"]),
        ("sys.modules['soundfile'] = None; import soundfile", ["soundfile", "midillm_jax[audio]"]),
        ("open(os.path.join(os.devnull, 'x'), 'w')", [os.path.join(os.devnull, "x"), "Not a directory"]),
        ("raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))", ["No space left on device; make room"]),
    ],
)
def test_what_a_person_can_mend_is_one_sentence_and_code_2(body: str, words: list[str]) -> None:
    done = run(body)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    for word in words:
        assert word in done.stderr
    assert "Traceback (most recent call last)" in run(body, "--traceback").stderr


def test_ctrl_c_says_how_to_go_on() -> None:
    done = run("raise KeyboardInterrupt")
    assert done.returncode == 130
    assert done.stderr == "\nstopped; nothing was half-written, run the same command again\n"
    done = run("raise KeyboardInterrupt", "resumes")
    assert done.stderr == "\nstopped; the same command goes on where this one was\n"


def test_training_says_that_it_goes_on(tmp_path: Path) -> None:
    (tmp_path / "stop.py").write_text("def get_config():\n    raise KeyboardInterrupt\n")
    command = [sys.executable, "-m", "midillm_jax.train", "--config", "stop.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "\nstopped; the same command goes on where this one was\n")


@pytest.mark.parametrize(
    ("variable", "folder"), [("XDG_CACHE_HOME", "midillm_jax/xla"), ("HOME", ".cache/midillm_jax/xla")]
)
def test_compiled_programs_go_to_the_users_cache(tmp_path: Path, variable: str, folder: str) -> None:
    gone = ("XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in gone} | {variable: str(tmp_path)}
    code = "from midillm_jax import commands; commands.enable_compile_cache(); import jax; "
    code += "print(jax.config.jax_compilation_cache_dir)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / folder)


def test_output_that_nobody_reads_any_more_ends_the_command_quietly() -> None:
    script = (
        "from midillm_jax import commands; import sys; commands.run(lambda arguments: print('line\\n' * 100_000), [])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "line\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 1
