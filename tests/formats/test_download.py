"""Downloads from a local server that drops, stalls, truncates and lies."""

import hashlib
import io
import json
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from fairseg_lite.formats import download as module
from fairseg_lite.formats.download import download, download_coco

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
SHA = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
QUICK = {"wait": 0.01, "timeout": 0.5, "progress": False, "tries": 3}


class Server(ThreadingHTTPServer):
    """Serves `files`; `faults[path]` is a list of names of faults, one used up by each request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {"/file": CONTENT}
        self.faults: dict[str, list[str]] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        pass  # clients hang up on purpose


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.close_connection = True
        asked = self.headers.get("Range")
        self.server.requests.append((self.path, asked))
        faults = self.server.faults.get(self.path, [])
        fault = faults.pop(0) if faults else None
        content = self.server.files.get(self.path)
        if content is None:
            return self.send_error(404)
        if fault and fault.isdigit():
            return self.send_error(int(fault))
        if fault == "hang up":
            return None
        if fault == "no answer":
            return time.sleep(1)
        if fault == "html":
            content, asked = b"<html>please log in</html>", None
        if fault == "other content":
            content = bytes(255 - b for b in content)
        if fault == "ignores range":
            asked = None
        start = int(asked.split("=")[1].split("-")[0]) if asked else 0
        if asked and start >= len(content):
            return self.send_error(416)
        shown = start + 7 if fault == "other range" else start
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {shown}-{len(content) - 1}/{len(content)}")
        if fault == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        elif fault != "no length":
            self.send_header("Content-Length", str(len(content) - start + (5 if fault == "long length" else 0)))
        self.end_headers()
        body = content[start:]
        if fault == "chunked":
            body = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
        if fault == "drops":
            body = body[: max(1, len(body) // 2)]
        if fault == "stalls":
            self.wfile.write(body[:100_000])
            self.wfile.flush()
            return time.sleep(1)
        if fault == "gives nothing":
            body = b""
        self.wfile.write(body)
        return None


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def get(server, path, *, size=300_000, checksum=SHA, **options):
    return download(server.url + "/file", path, size=size, checksum=checksum, **{**QUICK, **options})


@pytest.mark.parametrize("size, checksum", [(len(CONTENT), SHA), (len(CONTENT), None), (None, None)])
@pytest.mark.parametrize(
    "faults",
    [
        [],
        ["drops"] * 4,
        ["stalls"],
        ["no answer"],
        ["503", "hang up"],
        ["drops", "ignores range"],
        ["drops", "other range"],
        ["chunked"],
        ["drops", "hang up", "drops", "429", "drops", "500"],
    ],
)
def test_survives(server, tmp_path, faults, size, checksum):
    server.faults["/file"] = list(faults)
    path = get(server, tmp_path / "a" / "file", size=size, checksum=checksum)
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["file"]  # nothing else is left lying


def test_goes_on_where_it_stopped_within_a_call_and_in_a_later_call(server, tmp_path):
    server.faults["/file"] = ["drops", "503", "503", "503"]
    with pytest.raises(ValueError, match=r"failed 3 times.*503.*150000 bytes are kept"):
        get(server, tmp_path / "file")
    assert not (tmp_path / "file").exists()
    get(server, tmp_path / "file")
    assert server.requests[-1] == ("/file", "bytes=150000-")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_whole_file_is_not_fetched_again_and_a_wrong_one_is(server, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    get(server, tmp_path / "file")
    assert not server.requests
    (tmp_path / "file").write_bytes(CONTENT[:-1])
    get(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("left", [CONTENT[:1000], b"x" * 1000, b"x" * 300_000, CONTENT + b"more"])
def test_what_an_earlier_process_left_is_used_only_if_it_is_right(server, tmp_path, left):
    (tmp_path / "file.part").write_bytes(left)
    get(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    (tmp_path / "free.part").write_bytes(left)
    get(server, tmp_path / "free", size=None, checksum=None)
    assert (tmp_path / "free").read_bytes() == CONTENT


def test_without_a_checksum_nothing_is_used_again(server, tmp_path):
    server.faults["/file"] = ["drops", *["hang up"] * 3]
    with pytest.raises(ValueError, match="nothing is kept"):
        get(server, tmp_path / "free", size=None, checksum=None)
    assert not list(tmp_path.iterdir())
    server.files["/file"], server.requests[:] = CONTENT[::-1], []
    assert get(server, tmp_path / "free", size=None, checksum=None).read_bytes() == CONTENT[::-1]
    assert server.requests == [("/file", None)]


@pytest.mark.parametrize(
    "fault, options, message",
    [
        ("404", {}, "404"),
        ("html", {}, "offers 26 bytes where the file has 300000"),
        ("other content", {}, "another content.*sha256.*deleted"),
        ("other content", {"checksum": "md5:" + "0" * 32}, "another content.*md5"),
        ("no length", {}, "does not say how long"),
        ("long length", {"size": None}, "another content"),
        ("gives nothing", {}, "failed 3 times.*ended after 0 of 300000"),
        ("403", {}, "403.*address right"),
    ],
)
def test_refuses_with_one_clear_line(server, tmp_path, fault, options, message):
    server.faults["/file"] = [fault] * 20
    if fault == "long length":  # a lie about the length: seen as a cut, then as a wrong sum
        message = "failed 3 times|another content"
    with pytest.raises(ValueError, match=message) as caught:
        get(server, tmp_path / "file", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "file").exists()


def test_addresses_and_room_on_the_disk(server, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="neither http"):
        download("file:///etc/hostname", tmp_path / "x", **QUICK)
    with pytest.raises(ValueError, match="failed 3 times.*no answer"):
        download("http://127.0.0.1:9/x", tmp_path / "x", **QUICK)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("usage", (), {"free": 10}))
    with pytest.raises(ValueError, match="10 bytes free.*300000 more: make room"):
        get(server, tmp_path / "y")


def jpeg(width, height):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 10, 10)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def coco(server, monkeypatch):
    """A COCO 2017 of eight pictures, the last without an instance."""
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "width": 20 + i, "height": 10, "license": 1} for i in range(8)]
    annotations = [
        {"id": 10 + i, "image_id": i, "category_id": 18, "iscrowd": 0, "area": 16.0, "bbox": [1, 1, 4, 4],
         "segmentation": [[1, 1, 5, 1, 5, 5, 1, 5]]}
        for i in range(7)
    ]  # fmt: skip
    content = {"info": {"year": 2017}, "licenses": [], "images": images, "annotations": annotations,
               "categories": [{"id": 18, "name": "dog"}]}  # fmt: skip
    archives = {"annotations": {"annotations/instances_val2017.json": json.dumps(content).encode()}, "val2017": {}}
    for image in images:
        name = f"val2017/{image['file_name']}"
        server.files["/" + name] = archives["val2017"][name] = jpeg(image["width"], image["height"])
    files = {}
    for name, members in archives.items():
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for member, data in members.items():
                archive.writestr(member, data)
        data = buffer.getvalue()
        address = module.FILES[name][0]
        server.files["/" + address] = data
        files[name] = (address, len(data), "md5:" + hashlib.md5(data).hexdigest())
    monkeypatch.setattr(module, "FILES", files)
    return server


def test_a_subset_is_a_coco_folder_and_grows(coco, tmp_path):
    folder = tmp_path / "coco"
    report = download_coco(folder, subset=3, mirror=coco.url, **QUICK)
    content = json.loads((folder / "instances.json").read_text("utf-8"))
    names = {i["file_name"] for i in content["images"]}
    assert report == {"folder": folder, "images": 3, "instances": 3}
    assert names == {p.name for p in (folder / "images").iterdir()} and len(content["categories"]) == 1
    coco.requests.clear()
    assert download_coco(folder, subset=100, mirror=coco.url, **QUICK)["images"] == 7  # those with an instance
    assert len(coco.requests) == 4  # the three pictures and the archive were there
    assert names < {p.name for p in (folder / "images").iterdir()}


def test_the_whole_split(coco, tmp_path):
    report = download_coco(tmp_path / "coco", mirror=coco.url + "/", **QUICK)
    assert report["images"] == 8 and len(list((tmp_path / "coco" / "images").iterdir())) == 8


@pytest.mark.parametrize("lie", ["other picture", "no picture", "cut"])
def test_a_wrong_picture_stops_it_and_the_next_call_goes_on(coco, tmp_path, lie):
    name = "/val2017/000000000003.jpg"
    good = coco.files[name]
    coco.files[name] = {"other picture": jpeg(99, 10), "no picture": b"<html>", "cut": good[:-200]}[lie]
    with pytest.raises(ValueError, match="000000000003.jpg is no good picture"):
        download_coco(tmp_path / "coco", subset=7, mirror=coco.url, **QUICK)
    assert not (tmp_path / "coco" / "instances.json").exists()
    assert not [p for p in (tmp_path / "coco" / "images").iterdir() if p.name.startswith(".")]
    coco.files[name] = good
    assert download_coco(tmp_path / "coco", subset=7, mirror=coco.url, **QUICK)["images"] == 7


def test_a_shaky_network_gives_the_same_folder(coco, tmp_path):
    for path in coco.files:
        coco.faults[path] = ["drops", "503"]
    assert download_coco(tmp_path / "coco", subset=7, mirror=coco.url, **QUICK)["images"] == 7


def test_wrong_use(coco, tmp_path):
    with pytest.raises(ValueError, match="split is 'test'"):
        download_coco(tmp_path, split="test")
    with pytest.raises(ValueError, match="subset is 0"):
        download_coco(tmp_path, subset=0)
    (tmp_path / "instances.json").write_text('{"images": []}', "utf-8")
    with pytest.raises(ValueError, match="holds another data set"):
        download_coco(tmp_path, subset=1, mirror=coco.url, **QUICK)
