"""The example scenarios, traces and policy that README's commands are about, wherever Tilecast is installed.

In a clone they lie beside the packages; a wheel brings them as data, which the record of what was installed finds.
"""

from __future__ import annotations

import shutil
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path, PurePosixPath

from traces.errors import BadInput
from traces.marks import OutputKind
from traces.output import claim_folder, whole_file

SHIPPED = (
    "*.toml",
    "checkpoints.py",
    "gives_way.py",
    "library.py",
    "log.csv",
    "my_policy.py",
    "prompts.txt",
    "scaling.py",
    "tenants.py",
    "traces/*.csv",
)
"""What is shipped of the folder, which also holds the demo of a clone."""
EXAMPLES = OutputKind("set of examples")
_SHARED = PurePosixPath("share/tilecast/examples")


def example_files() -> dict[str, Path]:
    """Where each example lies, by its path inside the folder of examples.

    Raises:
        BadInput: Tilecast was installed without them.
    """
    beside = Path(__file__).parents[1] / "examples"
    if (beside / "tiny_image.toml").is_file():
        found = {str(path.relative_to(beside)): path for name in SHIPPED for path in beside.glob(name)}
    else:
        try:
            listed = files("tilecast") or ()
        except PackageNotFoundError:
            listed = ()
        found = {}
        for file in listed:
            before, shared, name = file.as_posix().partition(f"{_SHARED}/")
            if shared and (not before or before.endswith("/")):
                found[name] = Path(str(file.locate()))
    if not found:
        raise BadInput("this installation of Tilecast has no examples; they lie in examples/ of its repository")
    return dict(sorted(found.items()))


def write_examples(folder: Path) -> list[Path]:
    """Copy the examples into a new or empty folder; where they lie there. Nothing, where all of them lie there already.

    Raises:
        BadInput: it holds other things or cannot be written, or Tilecast was installed without examples.
    """
    wanted = example_files()
    if all(_same(folder / name, source) for name, source in wanted.items()):
        return []
    written = []
    with claim_folder(folder, EXAMPLES) as claimed:
        for name, source in wanted.items():
            with whole_file(claimed.path / name, EXAMPLES) as temporary:
                shutil.copyfile(source, temporary)
            written.append(folder / name)
    return written


def _same(path: Path, source: Path) -> bool:
    return path.is_file() and path.read_bytes() == source.read_bytes()
