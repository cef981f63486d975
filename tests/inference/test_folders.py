"""Jobs done: whole outputs, past broken files, batches, S3, side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from rgsud_lib.inference import Derainer
from rgsud_lib.inference.folders import Worker
from rgsud_lib.inference.jobs import plan
from rgsud_lib.inference.pictures import Picture, encode_picture, read_picture
from rgsud_lib.storage import transfer


class Halving(nn.Module):
    """Takes half of the light away; notes the batches it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(tuple(images.shape))
        return images / 2


@pytest.fixture()
def halving() -> Derainer:
    derainer = Derainer(Halving(), "cpu")
    derainer.network.batches.clear()
    return derainer


def save(path: Path, channels: int = 3, size: tuple[int, int] = (40, 53), dtype: type = np.uint8) -> np.ndarray:
    image = (np.random.default_rng(0).random((*size, channels)) * np.iinfo(dtype).max).astype(dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_picture(Picture(image), path.name))
    return image


def read(path: Path) -> np.ndarray:
    return read_picture(path.read_bytes(), 10**6).samples


def test_every_file_is_written_whole_and_broken_ones_are_noted(halving: Derainer, tmp_path: Path) -> None:
    image = save(tmp_path / "in" / "a.png")
    deep = save(tmp_path / "in" / "deep" / "b.tif", 4, dtype=np.uint16)
    (tmp_path / "in" / "bad.jpg").write_text("not an image")
    (tmp_path / "in" / "bad.mp4").write_text("not a video")
    jobs, _ = plan([str(tmp_path / "in")], str(tmp_path / "out"))
    worker, shares = Worker(halving), []
    written = list(worker.run(jobs, shares.append))
    assert written == [str(tmp_path / "out" / "a.png"), None, None, str(tmp_path / "out" / "deep" / "b.tif")]
    assert sum(shares) == pytest.approx(2)
    assert np.abs(read(tmp_path / "out" / "a.png") * 2.0 - image).max() <= 1
    output = read(tmp_path / "out" / "deep" / "b.tif")
    assert output.dtype == np.uint16 and np.array_equal(output[..., 3], deep[..., 3])
    assert np.abs(output[..., :3] * 2.0 - deep[..., :3]).max() <= 1
    reasons = {Path(address).name: reason for address, reason in worker.failures.items()}
    assert reasons["bad.jpg"].startswith("not an image") and reasons["bad.mp4"].startswith("damaged video")
    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert files == ["a.png", "deep/b.tif"]  # no part of a failed one either


def test_a_killed_write_leaves_nothing_that_resume_takes_for_whole(
    halving: Derainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "in" / "a.png")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    jobs, _ = plan([str(tmp_path / "in")], str(tmp_path / "out"))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("os.replace", killed)
        list(Worker(halving).run(jobs))
    jobs, skipped = plan([str(tmp_path / "in")], str(tmp_path / "out"), existing="skip")
    assert (len(jobs), skipped) == (1, 0)


def test_a_full_disk_ends_the_work(halving: Derainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "in" / "a.png")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rgsud_lib.inference.folders.write_bytes", full)
    jobs, _ = plan([str(tmp_path / "in")], str(tmp_path / "out"))
    with pytest.raises(OSError, match="No space"):
        list(Worker(halving).run(jobs))


def test_neighbours_of_one_size_go_together(halving: Derainer, tmp_path: Path) -> None:
    halving.batch = 2
    images = [save(tmp_path / "in" / f"{index}.png") for index in range(3)]
    save(tmp_path / "in" / "3.png", size=(20, 30))
    (tmp_path / "in" / "4.png").write_text("broken")
    save(tmp_path / "in" / "5.png", size=(20, 30))
    jobs, _ = plan([str(tmp_path / "in")], str(tmp_path / "out"))
    shares: list[float] = []
    written = list(Worker(halving).run(jobs, shares.append))
    assert [len(name or "") > 0 for name in written].count(True) == 5
    assert [shape[0] for shape in halving.network.batches] == [2, 1, 1, 1]
    assert sum(shares) == pytest.approx(5)
    assert np.abs(read(tmp_path / "out" / "1.png") * 2.0 - images[1]).max() <= 1


def test_strength_and_before_and_after(halving: Derainer, tmp_path: Path) -> None:
    image = save(tmp_path / "a.png", 2)
    jobs, _ = plan([str(tmp_path / "a.png")], str(tmp_path / "b.png"))
    list(Worker(halving, strength=0.5, compare=True).run(jobs))
    both = read(tmp_path / "b.png")
    assert np.array_equal(both[:, :53], image)
    assert np.abs(both[:, 53:, 0] - image[..., 0] * 0.75).max() <= 1
    assert np.array_equal(both[:, 53:, 1], image[..., 1])


def test_alpha_into_jpeg_is_a_failure_of_its_own(halving: Derainer, tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", 4)
    worker = Worker(halving)
    assert list(worker.run(plan([str(tmp_path / "in")], str(tmp_path / "out"), "jpg")[0])) == [None]
    assert "write PNG, WebP or TIFF" in next(iter(worker.failures.values()))


def test_from_and_to_s3(halving: Derainer, s3_bucket: str, tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    transfer.write(f"{s3_bucket}/rain/sub/a.png", (tmp_path / "a.png").read_bytes())
    transfer.write(f"{s3_bucket}/rain/bad.png", b"not an image")
    worker = Worker(halving)
    written = list(worker.run(plan([f"{s3_bucket}/rain"], f"{s3_bucket}/out")[0]))
    assert written == [None, f"{s3_bucket}/out/sub/a.png"]
    assert list(worker.failures) == [f"{s3_bucket}/rain/bad.png"]
    data = transfer.read(f"{s3_bucket}/out/sub/a.png")
    list(worker.run(plan([str(tmp_path / "a.png")], str(tmp_path / "b.png"))[0]))
    assert data == (tmp_path / "b.png").read_bytes()


def test_no_gradient_is_kept(halving: Derainer) -> None:
    assert not halving(torch.rand(3, 8, 8, requires_grad=True)).requires_grad


def test_pillow_reads_what_is_written(halving: Derainer, tmp_path: Path) -> None:
    save(tmp_path / "a.jpg")
    list(Worker(halving).run(plan([str(tmp_path / "a.jpg")], str(tmp_path / "b.webp"))[0]))
    with Image.open(tmp_path / "b.webp") as image:
        assert (image.format, image.size) == ("WEBP", (53, 40))
