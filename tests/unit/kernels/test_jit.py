"""The compile cache: real kernels for two targets, atomic entries, errors of one line."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from kernels import environment, jit
from kernels._jit import compiler, launch, store
from kernels._jit.compiler import Request, option_fields, read_resources
from kernels.errors import NasError, UnknownNameError
from kernels.jit import CompileError, Resources, compile_cuda, load, read_source, refuse_arch

SAXPY = r"""
#include <cuda_fp16.h>
extern "C" __global__ void saxpy(int n, float a, const float* x, float* y) {
  __shared__ float factor[64];
  factor[threadIdx.x % 64] = a;
  __syncthreads();
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = __half2float(__float2half(factor[(threadIdx.x + 1) % 64])) * x[i] + y[i];
}
"""

HOPPER = r"""
extern "C" __global__ void __launch_bounds__(128, 1) hopper(int* x) {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
  asm volatile("wgmma.fence.sync.aligned;");
  x[threadIdx.x] = 1;
}
"""

LOG = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z5spillPf' for 'sm_90a'
ptxas info    : Function properties for _Z5spillPf
ptxas         .     400 bytes stack frame, 24 bytes spill stores, 40 bytes spill loads
ptxas info    : Used 32 registers, used 0 barriers, 400 bytes cumulative stack size
ptxas info    : Function properties for helper
ptxas         .     8 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Compiling entry function 'saxpy' for 'sm_90a'
ptxas info    : Function properties for saxpy
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 12 registers, used 1 barriers, 256 bytes smem, 376 bytes cmem[0]
"""


class FakeCompiler:
    """Stands in for the child process and counts."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def __call__(self, folder: Path, request: Request) -> str:
        self.requests.append(request)
        (folder / "kernel.cubin").write_bytes(b"cubin of " + request.source.encode())
        return LOG


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCompiler:
    made = FakeCompiler()
    monkeypatch.setattr(jit, "compile_into", made)
    return made


# Real compilations.


@pytest.mark.parametrize(
    ("source", "arch", "function"), [(SAXPY, "sm_80", "saxpy"), (HOPPER, "sm_90a", "hopper")]
)
def test_compiles_without_a_gpu(source: str, arch: str, function: str, tmp_path: Path) -> None:
    made = compile_cuda(source, name=function, arch=arch, cache_dir=tmp_path)
    assert made.path.read_bytes()[:4] == b"\x7fELF"
    assert not made.cached
    assert "ignored" not in made.log  # ptxas drops setmaxnreg with a remark where it cannot use it
    used = made.functions[function]
    assert 4 <= used.registers <= 255
    assert used.shared_bytes == (256 if function == "saxpy" else 0)
    assert used.spill_bytes == used.stack_bytes == 0
    again = compile_cuda(source, name=function, arch=arch, cache_dir=tmp_path)
    assert again == made
    assert again.cached
    assert {file.name for file in made.path.parent.iterdir()} == {
        "entry.json",
        "kernel.cubin",
        "source.cu",
    }


def test_hopper_instructions_need_the_hopper_target(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"'setmaxnreg.inc' not supported on .target 'sm_90'"):
        compile_cuda(HOPPER, name="hopper", arch="sm_90", cache_dir=tmp_path)


def test_syntax_error_gives_one_line_with_the_place(tmp_path: Path) -> None:
    (tmp_path / "main.cu").write_text('#include "part.cuh"\n')
    (tmp_path / "part.cuh").write_text("#pragma once\n\n__device__ int f() { return nothing; }\n")
    with pytest.raises(CompileError) as raised:
        compile_cuda(read_source(tmp_path / "main.cu"), name="wrong", cache_dir=tmp_path / "cache")
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith("Kernel 'wrong' for sm_90a does not compile with NVRTC ")
    assert 'part.cuh(3): error: identifier "nothing" is undefined' in message
    assert '"nothing" is undefined' in raised.value.log
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_four_processes_compile_one_kernel_once(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom kernels.jit import compile_cuda\n"
        "made = compile_cuda(sys.argv[1], name='shared', cache_dir=Path(sys.argv[2]))\n"
        "print(made.cached, made.path, made.functions['hopper'].registers)\n"
    )
    command = [sys.executable, "-c", script, HOPPER, str(tmp_path / "cache")]
    workers = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": ":".join(sys.path)},
        )
        for _ in range(4)
    ]
    lines = [worker.communicate(timeout=120)[0].split() for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4
    assert sorted(line[0] for line in lines) == ["False", "True", "True", "True"]
    assert len({tuple(line[1:]) for line in lines}) == 1
    folders = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert folders == [Path(lines[0][1]).parent]


# The child process.


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", r"NVRTC .* crashed \(SIGSEGV"),
        ("import sys; sys.exit('no cuda.core here')", "process failed: no cuda.core here"),
    ],
)
def test_a_crash_of_the_compiler_is_one_error(
    body: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child.py"
    child.write_text(body)
    monkeypatch.setattr(compiler, "_CHILD", child)
    with pytest.raises(CompileError, match=rf"Kernel 'bad' for sm_90a.*{expected}"):
        compile_cuda("malformed", name="bad", cache_dir=tmp_path / "cache")


def test_a_compiler_that_hangs_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child.py"
    child.write_text("import threading; threading.Event().wait()")
    monkeypatch.setattr(compiler, "_CHILD", child)
    monkeypatch.setattr(compiler, "_TIMEOUT_SECONDS", 0.2)
    with pytest.raises(CompileError, match="did not end within"):
        compile_cuda("endless", name="slow", cache_dir=tmp_path / "cache")


def test_the_error_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(CompileError("one line", "the log")))
    assert str(error) == "one line"
    assert error.log == "the log"


def test_resources_are_read_per_function() -> None:
    assert read_resources(LOG) == {
        "_Z5spillPf": Resources(32, 0, 400, 64),
        "saxpy": Resources(12, 256, 0, 0),
    }
    assert read_resources("another compiler says nothing") == {}


def test_options_become_fields() -> None:
    options = ["-DTILE=64", "-DFAST", "--std=c++20", "-maxrregcount=128", "-lineinfo"]
    assert option_fields([*options, "-use_fast_math", "-Xptxas=-O1"]) == {
        "std": "c++20",
        "define_macro": ["TILE=64", "FAST"],
        "max_register_count": 128,
        "lineinfo": True,
        "use_fast_math": True,
        "ptxas_options": ["-v", "-O1"],
    }


@pytest.mark.parametrize("option", ["-I/usr/include", "-G", "-maxrregcount=many", "-std="])
def test_unknown_options_are_refused(option: str, fake: FakeCompiler, tmp_path: Path) -> None:
    with pytest.raises(NasError, match="Unknown compiler option"):
        compile_cuda("", name="x", options=[option], cache_dir=tmp_path)


@pytest.mark.parametrize(("name", "arch"), [("a/b", "sm_80"), ("", "sm_80"), ("a", "90a")])
def test_names_and_targets_are_checked(name: str, arch: str, tmp_path: Path) -> None:
    with pytest.raises(NasError, match=r"name has letters|Expected a target"):
        compile_cuda("", name=name, arch=arch, cache_dir=tmp_path)


# The cache.


def test_a_hit_does_not_compile(fake: FakeCompiler, tmp_path: Path) -> None:
    first = compile_cuda("text", name="x", cache_dir=tmp_path)
    second = compile_cuda("text", name="x", cache_dir=tmp_path)
    assert len(fake.requests) == 1
    assert (first.cached, second.cached) == (False, True)
    assert first == second
    assert second.path.read_bytes() == b"cubin of text"


def test_all_that_matters_is_in_the_key(
    fake: FakeCompiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_with(
        source: str = "text", name: str = "x", arch: str = "sm_80", options: Sequence[str] = ()
    ) -> str:
        return compile_cuda(source, name=name, arch=arch, options=options, cache_dir=tmp_path).key

    keys = {
        compile_with(),
        compile_with(source="other"),
        compile_with(name="y"),
        compile_with(name="y.1"),
        compile_with(arch="sm_90a"),
        compile_with(options=["-DA"]),
        compile_with(options=["-DA", "-DB"]),
        compile_with(options=["-DB", "-DA"]),
    }
    monkeypatch.setattr(jit, "compiler_version", lambda: "NVRTC 99.0")
    keys.add(compile_with())
    assert len(keys) == len(fake.requests) == 9


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "kernel.cubin").write_bytes(b"cubin of tex"),
        lambda folder: (folder / "kernel.cubin").unlink(),
        lambda folder: (folder / "entry.json").write_text('{"checksum": '),
        lambda folder: (folder / "entry.json").write_text("[]"),
        lambda folder: (folder / "entry.json").unlink(),
        lambda folder: edit(folder, "registers", 12, 13),
    ],
)
def test_a_damaged_entry_is_rebuilt(damage: object, fake: FakeCompiler, tmp_path: Path) -> None:
    first = compile_cuda("text", name="x", cache_dir=tmp_path)
    assert callable(damage)
    damage(first.path.parent)
    second = compile_cuda("text", name="x", cache_dir=tmp_path)
    assert len(fake.requests) == 2
    assert second == first
    assert not second.cached
    assert compile_cuda("text", name="x", cache_dir=tmp_path).cached
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1


def edit(folder: Path, name: str, old: int, new: int) -> None:
    text = (folder / "entry.json").read_text()
    assert f'"{name}": {old}' in text
    (folder / "entry.json").write_text(text.replace(f'"{name}": {old}', f'"{name}": {new}'))


def test_the_first_of_two_without_locks_wins(fake: FakeCompiler, tmp_path: Path) -> None:
    first = compile_cuda("text", name="x", cache_dir=tmp_path)
    request = Request("x", "sm_90a", (), "text")
    with store.staging_folder(tmp_path) as staging:
        (staging / "kernel.cubin").write_bytes(b"built by a slower worker")
        late = store.write_entry(
            staging, first.path.parent, request, compiler=first.compiler, log="slower"
        )
    assert late == first
    assert late.path.read_bytes() == b"cubin of text"
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [first.path.parent.name]


def test_nothing_is_left_behind_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(folder: Path, request: Request) -> str:
        (folder / "kernel.cubin").write_bytes(b"half")
        raise CompileError("no", "log")

    monkeypatch.setattr(jit, "compile_into", failing)
    with pytest.raises(CompileError):
        compile_cuda("text", name="x", cache_dir=tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_cache_that_cannot_be_written_names_the_variable(
    fake: FakeCompiler, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NasError, match="NAS_CACHE_DIR"):
        compile_cuda("text", name="x", cache_dir=tmp_path / "file")


def test_the_environment_names_the_cache(
    fake: FakeCompiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "named"))
    assert compile_cuda("text", name="x").path.parents[2] == tmp_path / "named"
    monkeypatch.delenv("NAS_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert environment.cache_dir() == tmp_path / "paretonas"


def test_the_source_is_kept_beside_its_cubin(fake: FakeCompiler, tmp_path: Path) -> None:
    made = compile_cuda("text", name="x", options=["-DA"], cache_dir=tmp_path)
    assert (made.path.parent / "source.cu").read_text() == "text"
    content = json.loads((made.path.parent / "entry.json").read_text())["content"]
    assert content["options"] == ["-DA"]


# Sources and functions.


def test_included_files_are_pasted_once(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "main.cu").write_text(
        '#include <cuda_fp16.h>\n#include "lib/a.cuh"\n#include "lib/b.cuh"\nmain\n'
    )
    (tmp_path / "lib" / "a.cuh").write_text('#pragma once\n# include "b.cuh"\na')
    (tmp_path / "lib" / "b.cuh").write_text("b\n")
    assert read_source(tmp_path / "main.cu").splitlines() == [
        '#line 1 "main.cu"',
        "#include <cuda_fp16.h>",
        '#line 1 "a.cuh"',
        "",
        '#line 1 "b.cuh"',
        "b",
        '#line 3 "a.cuh"',
        "a",
        '#line 3 "main.cu"',
        '#line 4 "main.cu"',
        "main",
    ]


def test_a_missing_include_is_named(tmp_path: Path) -> None:
    (tmp_path / "main.cu").write_text('#include "gone.cuh"\n')
    with pytest.raises(NasError, match=r"gone\.cuh cannot be read"):
        read_source(tmp_path / "main.cu")


def test_an_unknown_function_lists_the_known(fake: FakeCompiler, tmp_path: Path) -> None:
    made = compile_cuda("text", name="x", cache_dir=tmp_path)
    with pytest.raises(UnknownNameError, match=r"Known: _Z5spillPf, saxpy\. Did you mean 'saxpy'"):
        load(made, "sxpy")
    assert load(made, "saxpy").function == "saxpy"


def test_a_launch_without_a_tensor_on_a_gpu_is_refused(fake: FakeCompiler, tmp_path: Path) -> None:
    kernel = load(compile_cuda("text", name="x", cache_dir=tmp_path), "saxpy")
    for args, got in (([1], "no tensor"), ([torch.zeros(1)], "cpu")):
        with pytest.raises(NasError, match=rf"on one GPU\. Got {got}\."):
            kernel((1,), (1,), args)


@pytest.mark.parametrize(
    ("arch", "capability", "runs"),
    [
        ("sm_80", (8, 0), True),
        ("sm_80", (8, 9), True),
        ("sm_86", (8, 0), False),
        ("sm_80", (9, 0), False),
        ("sm_90a", (9, 0), True),
        ("sm_90a", (10, 0), False),
        ("sm_100f", (10, 3), True),
        ("sm_100a", (10, 3), False),
        ("sm_120", (12, 1), True),
    ],
)
def test_which_gpu_runs_a_cubin(arch: str, capability: tuple[int, int], runs: bool) -> None:
    assert (refuse_arch(arch, capability) is None) == runs


@pytest.mark.parametrize(
    ("current", "wanted", "chosen"),
    [(None, 0, [0]), (None, 1, [1]), (0, 1, [1]), (0, 0, []), (1, 1, [])],
)
def test_a_launch_binds_a_context_where_the_thread_has_not_the_right_one(
    current: int | None, wanted: int, chosen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = pytest.importorskip("cuda.bindings.driver")
    runtime = pytest.importorskip("cupy").cuda.runtime
    result = driver.CUresult
    answer = (
        (result.CUDA_ERROR_INVALID_CONTEXT, None)
        if current is None
        else (result.CUDA_SUCCESS, driver.CUdevice(current))
    )
    made: list[int] = []
    monkeypatch.setattr(driver, "cuCtxGetDevice", lambda: answer)
    monkeypatch.setattr(runtime, "setDevice", made.append)
    launch._bind(wanted)
    assert made == chosen
