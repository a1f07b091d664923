"""A cache of the hub that cannot be written: one message, before anything is downloaded."""

import pytest

from selectmoe_core.errors import ModelError
from selectmoe_core.models.hub import download


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE"])
def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch, variable):
    import huggingface_hub

    (tmp_path / "file").write_text("x")
    for name in ("HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(ModelError, match=r"the cache of the Hugging Face hub, .*file/cache") as e:
        download("org/model", None)
    assert "cannot be written" in str(e.value)
    assert "HF_HOME" in e.value.hint


def test_a_cache_that_can_be_written_is_used(tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "new" / "hub"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: f"/there/{name}")
    assert str(download("org/model", None)) == "/there/org/model"
    assert list((tmp_path / "new" / "hub").iterdir()) == []
