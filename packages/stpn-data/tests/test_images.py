import cv2
import numpy as np
import pytest

from stpn_data import DataError, read_image


@pytest.fixture(scope="module")
def picture():
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(noise, (80, 60), interpolation=cv2.INTER_CUBIC)  # (60, 80, 3) RGB


def encoded(picture, suffix=".jpg"):
    return cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()


def test_jpeg_comes_back_as_rgb(tmp_path, picture):
    path = tmp_path / "000000.JPEG"
    path.write_bytes(encoded(picture))
    image = read_image(path)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - picture).mean() < 4


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp"])
def test_another_kind_in_a_file_named_jpeg(tmp_path, picture, suffix):
    path = tmp_path / "000000.JPEG"
    path.write_bytes(encoded(picture, suffix))
    assert np.abs(read_image(path).astype(int) - picture).mean() < 4


def test_grey_becomes_three_equal_channels(tmp_path, picture):
    cv2.imwrite(str(tmp_path / "grey.jpg"), picture[:, :, 0])
    image = read_image(tmp_path / "grey.jpg")
    assert image.shape == (60, 80, 3)
    assert (image == image[:, :, :1]).all()


def test_cmyk_becomes_rgb(tmp_path, picture):
    pillow = pytest.importorskip("PIL.Image")
    pillow.fromarray(picture).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    image = read_image(tmp_path / "cmyk.jpg")
    assert np.abs(image.astype(int) - picture).mean() < 4


def test_alpha_and_sixteen_bits_become_rgb(tmp_path, picture):
    bgra = np.dstack([picture[:, :, ::-1], np.full((60, 80), 7, np.uint8)])
    cv2.imwrite(str(tmp_path / "alpha.png"), bgra)
    cv2.imwrite(str(tmp_path / "deep.png"), picture[:, :, ::-1].astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.png"), picture)
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png"), picture)


def test_exif_rotation_is_ignored(tmp_path, picture):
    data = encoded(picture)
    # A minimal EXIF segment whose only entry is Orientation (0x0112) = 6, rotate by 90 degrees.
    entry = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"
    tiff = b"MM\x00*\x00\x00\x00\x08\x00\x01" + entry + b"\x00\x00\x00\x00"
    segment = b"Exif\x00\x00" + tiff
    header = b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment
    rotated = tmp_path / "rotated.jpg"
    rotated.write_bytes(data[:2] + header + data[2:])
    assert cv2.imread(str(rotated)).shape == (80, 60, 3)  # the tag works
    assert read_image(rotated).shape == (60, 80, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.99])
def test_truncated_file_is_refused(tmp_path, picture, suffix, part):
    data = encoded(picture, suffix)
    path = tmp_path / "000003.JPEG"
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(DataError, match=r"000003\.JPEG"):
        read_image(path)


def test_truncation_is_seen_in_spite_of_a_whole_thumbnail(tmp_path, picture):
    thumbnail, data = encoded(picture[:8, :8]), encoded(picture)
    header = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    path = tmp_path / "a.jpg"
    path.write_bytes(data[:2] + header + data[2:])
    assert read_image(path).shape == (60, 80, 3)
    path.write_bytes((data[:2] + header + data[2:])[:-200])
    with pytest.raises(DataError, match="truncated"):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "empty"), (b"hello", "not an image"), (None, "cannot be read")]
)
def test_what_is_no_image_is_named(tmp_path, content, message):
    path = tmp_path / "frame.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=rf"frame\.jpg: .*{message}"):
        read_image(path)
