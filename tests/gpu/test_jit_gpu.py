"""Compiled kernels on a GPU, beside torch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from kernels.errors import NasError
from kernels.jit import CompiledKernel, Kernel, compile_cuda, load

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

SOURCE = r"""
extern "C" __global__ void saxpy(int n, float a, const float* x, const float* y, float* out) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = a * x[i] + (y ? y[i] : 0.0f);
}

extern "C" __global__ void reverse(int n, const float* x, float* out) {
  extern __shared__ float staged[];
  for (int i = threadIdx.x; i < n; i += blockDim.x) staged[i] = x[i];
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += blockDim.x) out[i] = staged[n - 1 - i];
}
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> CompiledKernel:
    major, minor = torch.cuda.get_device_capability()
    arch = f"sm_{major}{minor}" + ("a" if major >= 9 else "")
    cache: Path = tmp_path_factory.mktemp("jit")
    return compile_cuda(SOURCE, name="examples", arch=arch, cache_dir=cache)


def poisoned(count: int) -> torch.Tensor:
    return torch.full((count + 64,), float("nan"), device="cuda")


def run_saxpy(kernel: Kernel, count: int, factor: float) -> None:
    x, y, out = (
        torch.randn(count, device="cuda"),
        torch.randn(count, device="cuda"),
        poisoned(count),
    )
    grid = (-(-count // 256),)
    kernel(grid, (256,), (count, np.float32(factor), x, y, out))
    torch.testing.assert_close(out[:count], factor * x + y)
    assert out[count:].isnan().all()


@pytest.mark.parametrize("count", [1, 255, 256, 257, 1_000_003])
def test_saxpy_agrees_with_torch(compiled: CompiledKernel, count: int) -> None:
    run_saxpy(load(compiled, "saxpy"), count, 2.5)


def test_none_is_a_null_pointer(compiled: CompiledKernel) -> None:
    x, out = torch.randn(100, device="cuda"), poisoned(100)
    load(compiled, "saxpy")((1,), (128,), (100, np.float32(3), x, None, out))
    torch.testing.assert_close(out[:100], 3 * x)


def test_launches_on_the_current_stream(compiled: CompiledKernel) -> None:
    kernel = load(compiled, "saxpy")
    run_saxpy(kernel, 1000, 1.0)
    x, out = torch.randn(1000, device="cuda"), poisoned(1000)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # 50 ms: a launch on any other stream overtakes it
        x.fill_(7)
        kernel((4,), (256,), (1000, np.float32(2), x, None, out))
        done = stream.record_event()
    assert not done.query()
    done.synchronize()
    assert (out[:1000] == 14).all()


def test_is_captured_in_a_graph(compiled: CompiledKernel) -> None:
    kernel = load(compiled, "saxpy")
    run_saxpy(kernel, 1000, 1.0)
    x, out = torch.ones(1000, device="cuda"), poisoned(1000)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kernel((4,), (256,), (1000, np.float32(2), x, None, out))
    assert out.isnan().all()
    x.fill_(5)
    graph.replay()
    assert (out[:1000] == 10).all()


@pytest.mark.parametrize("count", [1000, 20_000])
def test_shared_memory_beyond_48_kib_is_opted_into(compiled: CompiledKernel, count: int) -> None:
    x, out = torch.randn(count, device="cuda"), poisoned(count)
    kernel = load(compiled, "reverse")
    kernel((1,), (256,), (count, x, out), shared_bytes=4 * count)
    torch.testing.assert_close(out[:count], x.flip(0), rtol=0, atol=0)
    assert out[count:].isnan().all()


def test_too_much_shared_memory_is_told(compiled: CompiledKernel) -> None:
    x = torch.zeros(8, device="cuda")
    with pytest.raises(NasError, match="Choose a smaller tile"):
        load(compiled, "reverse")((1,), (32,), (8, x, x), shared_bytes=1 << 20)


@pytest.mark.parametrize("wrong", [2.5, "text", [1]])
def test_arguments_without_a_width_are_refused(compiled: CompiledKernel, wrong: object) -> None:
    x = torch.zeros(8, device="cuda")
    with pytest.raises(NasError, match="NumPy scalars such as"):
        load(compiled, "saxpy")((1,), (32,), (8, wrong, x, x, x))  # type: ignore[arg-type]


def test_tensors_must_be_on_one_gpu(compiled: CompiledKernel) -> None:
    kernel = load(compiled, "saxpy")
    with pytest.raises(NasError, match=r"on one GPU\. Got no tensor\."):
        kernel((1,), (32,), (8, np.float32(1), None, None, None))
    on_cpu, on_gpu = torch.zeros(8), torch.zeros(8, device="cuda")
    with pytest.raises(NasError, match=r"on one GPU\. Got cpu, cuda:0\."):
        kernel((1,), (32,), (8, np.float32(1), on_cpu, None, on_gpu))


def test_a_cubin_for_another_gpu_is_refused(tmp_path: Path) -> None:
    major, _ = torch.cuda.get_device_capability()
    other = "sm_90a" if major == 8 else "sm_80"
    kernel = load(compile_cuda(SOURCE, name="other", arch=other, cache_dir=tmp_path), "saxpy")
    x = torch.zeros(8, device="cuda")
    with pytest.raises(NasError, match=rf"it is for {other} and the GPU is sm_"):
        kernel((1,), (32,), (8, np.float32(1), x, x, x))


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("index", [0, 1])
def test_a_fresh_thread_launches(
    compiled: CompiledKernel, overlap: bool, loaded: bool, index: int
) -> None:
    from cuda.bindings import driver

    if index >= torch.cuda.device_count():
        pytest.skip("needs a second GPU")
    if overlap and torch.cuda.get_device_capability(index) < (9, 0):
        pytest.skip("early launches need compute capability 9.0")
    count = 20_000  # 80 kB of shared memory: to be allowed, too, where nothing is loaded
    device = torch.device("cuda", index)
    x = torch.randn(count, device=device)
    out = torch.full_like(x, float("nan"))
    kernel = load(compiled, "reverse")

    def launch() -> None:
        kernel((1,), (256,), (count, x, out), shared_bytes=4 * count, overlap=overlap)

    def from_a_fresh_thread() -> tuple[str, int]:
        status, _ = driver.cuCtxGetDevice()
        launch()
        return status.name, int(driver.cuCtxGetDevice()[1])

    if loaded:
        launch()
        out.fill_(float("nan"))
    torch.cuda.synchronize(index)
    with ThreadPoolExecutor(1) as pool:
        before, after = pool.submit(from_a_fresh_thread).result()
    assert before == "CUDA_ERROR_INVALID_CONTEXT"
    assert after == 0  # the thread's device, as before
    torch.testing.assert_close(out, x.flip(0), rtol=0, atol=0)
