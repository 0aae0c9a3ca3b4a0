"""An exported folder goes to the Hugging Face Hub.

Nothing is sent without a line on stderr that says what, how much, where to and who can see it.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import midillm_jax
from midillm_jax.errors import UserError, first_line
from midillm_jax.model import hf_config
from midillm_jax.model.hub import NAME

_WEIGHTS = ["model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"]
"""Of these, what an earlier push left and this one does not replace is deleted: two sets of weights are ambiguous."""


def check(name: str) -> None:
    """What can be said before the work: of the name, and of this machine.

    Raises:
        UserError: the name is none, HF_HUB_OFFLINE is set, or nobody is logged in.
    """
    import huggingface_hub
    from huggingface_hub import constants

    if not NAME.fullmatch(name):
        raise UserError(f"--push-to-hub {name}: expected OWNER/NAME, such as me/my-music-model.")
    if constants.HF_HUB_OFFLINE:
        raise UserError(f"--push-to-hub {name}: HF_HUB_OFFLINE forbids to ask the Hub; unset it, or leave this out.")
    if huggingface_hub.get_token() is None:
        raise UserError(
            f"--push-to-hub {name}: nobody is logged in to {constants.ENDPOINT}; `hf auth login` with a token that may "
            "write, or put one into HF_TOKEN."
        )


def push(folder: Path, name: str, private: bool) -> str:
    """Uploads a folder, into a repository that is made if there is none; the folder stays.

    Files of the same names are replaced there, others left alone.

    Args:
        folder: as ``python -m midillm_jax.export`` wrote it.
        name: OWNER/NAME.
        private: the repository must be its owner's alone; else a new one is as the owner's settings have it, which is
            for everyone to see if they say nothing.

    Returns:
        where it is now.

    Raises:
        UserError: as for :func:`check`; or the folder is no export, the Hub does not let this user write there or
            cannot be reached, or the repository is there and public though ``private`` was asked for.
    """
    check(name)
    if not (folder / hf_config.OWN_FILE).is_file():
        raise UserError(
            f"{folder}: is not an export of midillm_jax, which would have a {hf_config.OWN_FILE}; write one with --out."
        )
    import huggingface_hub
    from huggingface_hub import constants

    files = [path for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    with _told(name):
        huggingface_hub.create_repo(name, private=private or None, exist_ok=True)
        hidden = bool(huggingface_hub.model_info(name).private)
        if private and not hidden:
            raise UserError(
                f"--push-to-hub {name}: this repository is there already and everyone can see it, but --private was "
                f"asked for; make it private on {constants.ENDPOINT}/{name}/settings, or choose another name."
            )
        print(
            f"{name}: sending {size / 1e9:.2f} GB in {len(files)} files from {folder} to {constants.ENDPOINT}, "
            + ("private" if hidden else "for everyone to see"),
            file=sys.stderr,
        )
        huggingface_hub.upload_folder(
            repo_id=name,
            folder_path=folder,
            commit_message=f"Export of midillm_jax {midillm_jax.__version__}",
            delete_patterns=_WEIGHTS,
        )
    return f"{constants.ENDPOINT}/{name}"


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Errors of the Hub, and on the way to it, as one sentence."""
    from huggingface_hub import constants, errors

    where = f"--push-to-hub {name}"
    try:
        yield
    except UserError:
        raise
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status == 401:
            raise UserError(
                f"{where}: {constants.ENDPOINT} does not know the token of this machine; `hf auth login` with one that "
                "may write."
            ) from None
        if status in (403, 404):
            raise UserError(
                f"{where}: {constants.ENDPOINT} does not let this user write there; check the owner's name, and that "
                "the token may write (`hf auth whoami`)."
            ) from None
        raise UserError(f"{where}: the Hub answered {status}: {first_line(error)}; try again later.") from None
    except Exception as error:  # the HTTP library below has errors of its own, and was another one before
        raise UserError(f"{where}: could not be sent to {constants.ENDPOINT}: {first_line(error)}.") from None
