"""Kernels compiled for an H200, in one process: in that of the tests they may be interpreted. No device is needed."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

_TOOLS = "backends/nvidia/bin"


@functools.cache
def faults() -> dict[str, str]:
    """What is wrong with the kernels of each module, empty where nothing is."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        environment |= {"TRITON_CACHE_DIR": cache, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        done = subprocess.run(
            [sys.executable, "-m", __name__], env=environment, cwd=Path(__file__).parents[3], capture_output=True,
            text=True,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def tool(name: str) -> Path:
    """A program that Triton's package carries, if it does."""
    import triton

    return Path(triton.__file__).parent / _TOOLS / name


def _compiled(function: Any, signature: dict[str, str], constants: dict[str, Any], whole: Any, **options: Any) -> Any:
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    source = ASTSource(function, signature, constants, {(at,): [["tt.divisibility", 16]] for at in whole})
    return compile(source, target=GPUTarget("cuda", 90, 32), options=options)


def _said_by(*words: Any) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def _stitch() -> None:
    """Wide loads and stores, and nothing spilled."""
    from backend.kernels import stitch_triton as kernels

    def compiled(function: Any, constants: dict[str, Any], **types: str) -> Any:
        signature = {name: types.get(name, "constexpr") for name in function.arg_names}
        whole = [name for name, kind in types.items() if kind[0] == "*" or name in ("channels", "area")]
        return _compiled(function, signature, constants, map(function.arg_names.index, whole))

    def local_bytes(kernel: Any) -> int:
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(kernel.asm["cubin"])
            file.flush()
            usage = _said_by(tool("cuobjdump"), "--dump-resource-usage", file.name)
        found = re.search(r"STACK:(\d+) .*LOCAL:(\d+)", usage)
        assert found, usage
        return sum(map(int, found.groups()))

    pixels, channels = kernels._tile(34 * 34, 320, kernels.STITCH_TILE, True, pixels=64)
    stitch = compiled(
        kernels._stitch,
        {"HALO": 1, "NORM": True, "SILU": True, "CUT": True, "LAST": True, "PIXELS": pixels, "CHANNELS": channels},
        x="*bf16", out="*bf16", scale="*fp32", shift="*fp32", row_of="*i64", neighbours="*i64", patches="i32",
        height="i32", width="i32", blocks="i32", pieces="i32", channels="i32", area="i32", out_area="i32",
    )  # fmt: skip
    pixels, channels = kernels._tile(32 * 32, 320, kernels.MOMENTS_TILE, True, pixels=128)
    moments = compiled(
        kernels._moments, {"LAST": True, "PIXELS": pixels, "CHANNELS": channels},
        x="*bf16", moments="*fp32", channels="i32", area="i32", blocks="i32", pieces="i32",
    )  # fmt: skip
    pool = compiled(
        kernels._pool,
        {"EPS": 1e-5, "WEIGHT": True, "BIAS": True, "ADDED": True, "CUT": True, "PIXELS": 128, "EACH": 10,
         "EACH_UP": 16, "ENTRIES": kernels.POOL_TILE // 16},
        moments="*fp32", scale="*fp32", shift="*fp32", weight="*bf16", bias="*bf16", added="*bf16", first_of_row="*i64",
        patches_of_row="*i64", channels="i32", area="i32", pieces="i32", added_step="i32",
    )  # fmt: skip
    assert [local_bytes(kernel) for kernel in (stitch, moments, pool)] == [0, 0, 0]
    assert "st.global.v4.b32" in stitch.asm["ptx"]
    for kernel in (stitch, moments):
        assert re.search(r"ld\.global(\.\w+)*\.v4\.b32", kernel.asm["ptx"])


def _modulate() -> None:
    """In half precision and as Wan does it: rounded as alone, wide, and nothing spilled."""
    import triton.language as tl

    from backend.kernels.modulate_triton import ELEMENTS, WIDEST, _multiply_add

    for half, of_rows, out, term_of_row in (
        ("bf16", "bf16", "bf16", True), ("bf16", "bf16", "bf16", False), ("fp32", "fp32", "bf16", True)
    ):  # fmt: skip
        types = [half, of_rows, of_rows if term_of_row else half, "i64", out]
        names = _multiply_add.arg_names
        kinds = ["*" + name for name in types] + ["i32"] * 4 + ["constexpr"] * 7
        product = tl.bfloat16 if half == "bf16" else tl.float32
        values = [term_of_row, product, product, tl.float32, tl.float32, ELEMENTS // WIDEST, WIDEST]
        kernel = _compiled(
            _multiply_add, dict(zip(names, kinds, strict=True)), dict(zip(names[9:], values, strict=True)),
            (0, 1, 2, 3, 4, 6, 7, 8), enable_fp_fusion=False,
        )  # fmt: skip
        text = kernel.asm["ptx"]
        assert "fma.rn" not in text
        wide = [line for line in text.splitlines() if re.search("(ld|st)[.]global", line) and "v4.b32" in line]
        assert len(wide) >= 8, text
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "kernel.ptx"
            path.write_text(text)
            report = _said_by(tool("ptxas"), "-v", "-arch=sm_90a", path, "-o", path.with_suffix(".cubin"))
        assert "0 bytes spill stores, 0 bytes spill loads" in report, report


if __name__ == "__main__":
    found = {}
    for check in (_stitch, _modulate):
        try:
            check()
            found[check.__name__[1:]] = ""
        except Exception:
            found[check.__name__[1:]] = traceback.format_exc()
    print(json.dumps(found))
