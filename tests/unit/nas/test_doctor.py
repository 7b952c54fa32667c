"""What ``nas doctor`` finds."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from kernels import environment
from nas.jobs import doctor


def found(result: dict, name: str) -> dict:
    return next(item for item in result["findings"] if item["name"] == name)


def test_a_whole_installation_is_healthy(nas) -> None:
    result = json.loads(nas("doctor", "--json").stdout)
    assert result["healthy"]
    assert {"python", "processor", "torch", "package kernels", "cache folder", "disk"} <= {
        item["name"] for item in result["findings"]
    }
    assert all(item["remedy"] for item in result["findings"] if item["status"] == "broken")


def test_another_package_of_our_name_is_a_clash(tmp_path: Path) -> None:
    ours, stranger = ModuleType("kernels"), ModuleType("kernels")
    ours.__file__ = str(tmp_path / "kernels" / "__init__.py")
    stranger.__file__ = "/somewhere/site-packages/kernels/__init__.py"
    (shadowed,) = doctor.name_findings("kernels", stranger, tmp_path, [])
    assert shadowed.status == "broken"
    assert "/somewhere" in shadowed.found
    (both,) = doctor.name_findings("kernels", ours, tmp_path, ["kernels"])
    assert both.status == "broken"
    assert "pip uninstall kernels" in both.remedy
    (alone,) = doctor.name_findings("kernels", ours, tmp_path, [])
    assert alone.status == "ok"


def test_a_missing_or_old_library_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["rich>=9999", "no-such-distribution>=1", "rich>=1", "numpy>=1; python_version < '3'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: wanted)
    old, absent, good = list(doctor._libraries())[1:]
    assert (old.status, absent.status, good.status) == ("broken", "broken", "ok")
    assert "pip install 'rich>=9999'" in old.remedy
    assert "not installed" in absent.found


def test_a_library_that_only_some_work_needs_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["no-such-distribution>=1; extra == 'export'", "rich>=1; extra == 'postgresql'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: wanted)
    absent, present = list(doctor._libraries())[1:]
    assert (absent.status, present.status) == ("note", "ok")
    assert "pip install 'paretonas[export]', for exports as ONNX" in absent.remedy


def test_a_folder_that_cannot_be_written_is_broken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(environment.CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    cache = next(item for item in doctor._folders() if item.name == "cache folder")
    assert cache.status == "broken"
    assert environment.CACHE_VARIABLE in cache.remedy


def test_a_check_that_raises_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def torn():
        raise ImportError("libcudart.so.13: cannot open shared object file")
        yield

    monkeypatch.setattr(doctor, "_CHECKS", (torn,))
    result = doctor.doctor()
    assert not result["healthy"]
    assert "libcudart" in found(result, "torn")["found"]
    assert "Broken: torn" in doctor.doctor_text(result)
