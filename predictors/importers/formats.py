"""The formats of measurements that can be imported: one line a format to add."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from predictors.importers import mixfusion, mlperf, published, serving, sglang
from predictors.importers.contents import FileContents, read_contents
from predictors.importers.reported import ImportOptions, ReportedFile, shown
from predictors.importers.rows import ImportedProfile, profile_of
from traces.errors import BadInput, did_you_mean


@dataclass(frozen=True)
class MeasurementFormat:
    """A form of files.

    Attributes:
        recognises: whether a file has it, by its contents.
        read: reads a file.
    """

    recognises: Callable[[FileContents], bool]
    read: Callable[[FileContents, ImportOptions], ReportedFile]


FORMATS = {
    "mixfusion": MeasurementFormat(mixfusion.recognises, mixfusion.read),
    "mlperf": MeasurementFormat(mlperf.recognises, mlperf.read),
    "vllm-omni": MeasurementFormat(serving.recognises_vllm_omni, serving.read),
    "sglang": MeasurementFormat(sglang.recognises, sglang.read),
    "published": MeasurementFormat(published.recognises, published.read),
}
"""Name -> format."""


def import_measurements(
    files: Iterable[Path], file_format: str = "", options: ImportOptions | None = None
) -> ImportedProfile:
    """The profile of the measurements in some files.

    Args:
        files: paths of the files, of one format or of several.
        file_format: one of `FORMATS`; empty: as each file's contents show.
        options: what the files do not say, and which of their rows are meant.

    Raises:
        BadInput: no files, one that cannot be read or has no known form, and as `predictors.importers.rows.profile_of`.
    """
    options = options or ImportOptions()
    if file_format and file_format not in FORMATS:
        raise BadInput(f"unknown format {file_format!r}; {did_you_mean(file_format, FORMATS)}")
    contents = [read_contents(path) for path in files]
    if not contents:
        raise BadInput("no files, expected measurements to import")
    return profile_of([FORMATS[file_format or _form_of(each)].read(each, options) for each in contents], options)


def _form_of(contents: FileContents) -> str:
    """The format that a file has.

    Raises:
        BadInput: none, or several.
    """
    found = [name for name, form in FORMATS.items() if form.recognises(contents)]
    if len(found) == 1:
        return found[0]
    what = f"may be {' or '.join(found)}" if found else "has no form that is known"
    columns = f" (columns {', '.join(map(shown, contents.columns[:8]))})" if contents.columns else ""
    raise BadInput(f"{contents.path}: the file {what}{columns}; --format says which it is: {', '.join(FORMATS)}")
