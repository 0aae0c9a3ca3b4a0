"""A model by its name: a folder on this machine, or a repository of the Hugging Face Hub, fetched into the Hub's cache.

Nothing is fetched without a line on stderr that says what, how much and where to. HF_HUB_OFFLINE=1 uses what the cache
has.
"""

import os
import re
import sys
from pathlib import Path

from midillm_jax.errors import UserError, first_line
from midillm_jax.model.hf_card import LICENCE_FILES

NAME = re.compile(r"[\w.-]+/[\w.-]+")
"""OWNER/NAME of a repository."""
_WANTED = ["*.json", "*.safetensors", "tokenizer.model", *LICENCE_FILES]
"""Files of a repository that are read here; pickled weights are not."""


def local_folder(name: str | os.PathLike[str]) -> Path:
    """The folder of a model.

    Args:
        name: a folder, or ``OWNER/NAME`` of a repository on the Hub. Where the first half is a folder here, what was
            meant is a path.

    Returns:
        the folder, which need not exist if ``name`` is a path.

    Raises:
        UserError: the Hub has no such repository, does not give it to this user, cannot be reached, or is not asked
            (HF_HUB_OFFLINE) and its cache does not have it.
    """
    path = Path(name)
    if path.exists() or not NAME.fullmatch(str(name)) or path.parent.is_dir():
        return path
    # Here, as it takes a third of a second, and most models are folders.
    import huggingface_hub
    from huggingface_hub import constants, errors

    where = f"{name}: neither a folder here nor"
    try:
        if constants.HF_HUB_OFFLINE:
            return Path(huggingface_hub.snapshot_download(str(name), local_files_only=True, allow_patterns=_WANTED))
        huggingface_hub.model_info(str(name))  # says why it cannot be had, which a dry run does not
        files = huggingface_hub.snapshot_download(str(name), dry_run=True, allow_patterns=_WANTED)
        missing = [file for file in files if file.will_download]
        if missing:
            size = sum(file.file_size or 0 for file in missing)
            print(
                f"{name}: fetching {size / 1e9:.2f} GB in {len(missing)} files from {constants.ENDPOINT} "
                f"into {constants.HF_HUB_CACHE}",
                file=sys.stderr,
            )
        return Path(huggingface_hub.snapshot_download(str(name), allow_patterns=_WANTED))
    except errors.LocalEntryNotFoundError as error:
        if constants.HF_HUB_OFFLINE:
            raise UserError(
                f"{where} in the Hub's cache, {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE forbids to fetch it; unset "
                "that, or name the model's folder"
            ) from None
        raise UserError(f"{where} to be had from the Hub, which cannot be reached: {error}") from None
    except errors.GatedRepoError:
        raise UserError(
            f"{name}: the Hub gives this model only to those who accepted its licence on {constants.ENDPOINT}/{name}; "
            "do so, then `hf auth login`"
        ) from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"{where} a repository that {constants.ENDPOINT} shows to you; check the name, or `hf auth login` if it is "
            "private"
        ) from None
    except Exception as error:  # the HTTP library below has errors of its own, and was another one before
        raise UserError(f"{where} to be had from the Hub: {first_line(error)}") from None
