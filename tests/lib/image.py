#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes a container image with one static program, as `docker save` does.

    image.py NAME PROGRAM OUT.tar [ARGUMENT...]

The image runs PROGRAM with the arguments. Two files for the same input are the same byte for byte.
"""
import hashlib
import io
import json
import sys
import tarfile


def member(tar, name, data, mode=0o644):
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    tar.addfile(info, io.BytesIO(data))


def layer(program):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar, open(program, "rb") as file:
        member(tar, "program", file.read(), 0o755)
    return out.getvalue()


def main():
    name, program, path, *arguments = sys.argv[1:]
    contents = layer(program)
    config = json.dumps({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/program"], "Cmd": arguments},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(contents).hexdigest()]},
    }).encode()
    digest = hashlib.sha256(config).hexdigest()
    manifest = [{"Config": digest + ".json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        member(tar, "layer.tar", contents)
        member(tar, digest + ".json", config)
        member(tar, "manifest.json", json.dumps(manifest).encode())


if __name__ == "__main__":
    main()
