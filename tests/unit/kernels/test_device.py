import dataclasses
import doctest
import os
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

import kernels.device
from kernels.device import Device, detect
from kernels.errors import NasError


@pytest.fixture
def fake_cards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two cards; the second is torch's current one."""

    def properties(index: int) -> SimpleNamespace:
        return SimpleNamespace(
            name=f"Card {index}",
            major=9,
            minor=0,
            multi_processor_count=132,
            total_memory=80 << 30,
            L2_cache_size=50 << 20,
            uuid=f"uuid-{index}",
        )

    driver = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\n"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    monkeypatch.setattr(kernels.device, "_text", lambda path: driver)
    kernels.device._cuda.cache_clear()
    yield
    kernels.device._cuda.cache_clear()


@pytest.fixture
def no_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_the_cpu_is_described() -> None:
    cpu = detect("cpu")
    assert (cpu.kind, cpu.index, cpu.torch_name) == ("cpu", 0, "cpu")
    assert (cpu.capability, cpu.uuid, cpu.driver) == (None, None, None)
    assert cpu.name
    assert 1 <= cpu.cores <= (os.cpu_count() or 1)
    assert cpu.memory_bytes > 1 << 28
    assert cpu.l2_bytes is None or cpu.l2_bytes > 1 << 15


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:1"])
def test_an_absent_card_is_one_clear_error(name: str, no_cards: None) -> None:
    with pytest.raises(NasError, match=f"no device '{name}'.* sees 0 GPU"):
        detect(name)


def test_none_is_the_cpu_without_cards(no_cards: None) -> None:
    assert detect() == detect("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:", "cuda:-1", "cpu:0", "CUDA"])
def test_another_form_of_name_is_refused(name: str) -> None:
    with pytest.raises(NasError, match="Unknown device"):
        detect(name)


def test_a_card_is_described(fake_cards: None) -> None:
    assert detect("cuda:0") == Device(
        kind="cuda",
        index=0,
        name="Card 0",
        capability=(9, 0),
        cores=132,
        memory_bytes=80 << 30,
        l2_bytes=50 << 20,
        uuid="uuid-0",
        driver="580.95.05",
    )
    assert str(detect("cuda:0")) == "cuda:0 (Card 0)"


def test_cuda_and_none_mean_the_current_card(fake_cards: None) -> None:
    assert detect("cuda").torch_name == detect().torch_name == "cuda:1"
    with pytest.raises(NasError, match=r"no device 'cuda:2'.* sees 2 GPU"):
        detect("cuda:2")


def test_a_device_is_an_immutable_value() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        detect("cpu").name = "other"  # type: ignore[misc]
    assert hash(detect("cpu")) == hash(dataclasses.replace(detect("cpu")))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_real_card_is_described() -> None:
    card = detect("cuda:0")
    assert card.capability == torch.cuda.get_device_capability(0)
    assert card.name == torch.cuda.get_device_name(0)
    assert card.memory_bytes > 1 << 30
    assert card.uuid
    assert card.driver


def test_docstring_examples() -> None:
    assert doctest.testmod(kernels.device).failed == 0
