#!/usr/bin/env python3
"""Serves packages for Python, Node.js and Go on a port of the loopback interface, in place of the public registries.

    package-index PORT DIRECTORY

DIRECTORY gets an index of the packages that install.sh downloaded, and of two small packages, `left` and `right`, which `left`
needs. Python finds its packages at /simple/, Node.js at /npm/, and Go the module `example.com/left` at /go/.
"""
import base64
import hashlib
import http.server
import io
import json
import os
import re
import sys
import tarfile
import zipfile

PACKAGES = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "packages")
VERSIONS = {"left": "1.0.0", "right": "2.0.0"}
NEEDS = {"left": ["right"], "right": []}


def wheel(name):
    """Writes a wheel. Equal input gives equal bytes."""
    version = VERSIONS[name]
    directory = f"{name}-{version}.dist-info/"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{name}.py": f'VALUE = "{name} {version}"\n',
        directory + "METADATA": metadata + "".join(f"Requires-Dist: {other}\n" for other in NEEDS[name]),
        directory + "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        record += f"{path},sha256={digest},{len(text)}\n"
    files[directory + "RECORD"] = record + f"{directory}RECORD,,\n"
    with zipfile.ZipFile(f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path), text)


def tarball(name):
    """Writes a package of Node.js."""
    version = VERSIONS[name]
    package = {"name": name, "version": version, "main": "index.js"}
    package["dependencies"] = {other: f"^{VERSIONS[other]}" for other in NEEDS[name]}
    files = {"package.json": json.dumps(package), "index.js": f'module.exports = "{name} {version}"\n'}
    with tarfile.open(f"{name}-{version}.tgz", "w:gz") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo("package/" + path)
            member.size, member.mode = len(text), 0o644
            archive.addfile(member, io.BytesIO(text.encode()))


def module():
    """Writes a module of Go, as a module proxy has it."""
    version = f"v{VERSIONS['left']}"
    text = "module example.com/left\n\ngo 1.21\n"
    program = f'package left\n\n// Value is the name and version.\nconst Value = "left {VERSIONS["left"]}"\n'
    directory = "go/example.com/left/@v"
    os.makedirs(directory)
    for name, content in (("list", version), (f"{version}.info", json.dumps({"Version": version})), (f"{version}.mod", text)):
        with open(f"{directory}/{name}", "w") as file:
            file.write(content)
    with zipfile.ZipFile(f"{directory}/{version}.zip", "w") as archive:
        for name, content in (("go.mod", text), ("left.go", program)):
            archive.writestr(zipfile.ZipInfo(f"example.com/left@{version}/{name}"), content)


def index_wheel(name):
    """Adds a wheel to the index of Python (PEP 503)."""
    project = re.sub(r"[-_.]+", "-", name.split("-")[0]).lower()
    with open(name, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    os.makedirs(f"simple/{project}", exist_ok=True)
    with open(f"simple/{project}/index.html", "a") as page:
        page.write(f'<a href="/{name}#sha256={digest}">{name}</a>\n')


def index_tarball(name, url):
    """Adds a package to the index of Node.js: the document of all versions, of one version, and of the latest."""
    with open(name, "rb") as file:
        content = file.read()
    with tarfile.open(name) as archive:
        members = [member for member in archive.getmembers() if member.name.count("/") == 1]
        member = next(member for member in members if member.name.endswith("/package.json"))
        package = json.load(archive.extractfile(member))
    package["dist"] = {
        "tarball": f"{url}/{name}",
        "shasum": hashlib.sha1(content).hexdigest(),
        "integrity": "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode(),
    }
    version = package["version"]
    every = {"name": package["name"], "dist-tags": {"latest": version}, "versions": {version: package}}
    directory = f"npm/{package['name']}"
    os.makedirs(directory, exist_ok=True)
    for path, document in (("index.json", every), (version, package), ("latest", package)):
        with open(f"{directory}/{path}", "w") as file:
            json.dump(document, file)


class Handler(http.server.SimpleHTTPRequestHandler):
    def translate_path(self, path):
        found = super().translate_path(path)
        indexes = (os.path.join(found, name) for name in ("index.html", "index.json"))
        return next((index for index in indexes if os.path.isfile(index)), found)


def main():
    port, directory = int(sys.argv[1]), sys.argv[2]
    os.makedirs(directory)
    os.chdir(directory)
    for name in VERSIONS:
        wheel(name)
        tarball(name)
    module()
    for name in os.listdir(PACKAGES):
        os.symlink(os.path.join(PACKAGES, name), name)
    for name in sorted(os.listdir(".")):
        if name.endswith(".whl"):
            index_wheel(name)
        elif name.endswith(".tgz"):
            index_tarball(name, f"http://127.0.0.1:{port}")
    http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


main()
