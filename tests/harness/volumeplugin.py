"""A small volume plugin: directories of its own, over the plugin protocol on a unix socket.

Run as a program: `python volumeplugin.py SOCKET FOLDER`. Its behaviour is told by the files in
FOLDER/lies: METHOD holds what to answer instead (`hang`: nothing ever; `die`: end at once).
Each call is a line of FOLDER/calls.
"""

import json
import os
import shutil
import socketserver
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any


class Volumes:
    """What the plugin keeps: FOLDER/volumes/NAME/data, and who has it mounted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "volumes").mkdir(parents=True, exist_ok=True)

    def answer(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        name = body.get("Name", "")
        home = self.folder / "volumes" / name
        match method:
            case "Plugin.Activate":
                return {"Implements": ["VolumeDriver"]}
            case "VolumeDriver.Capabilities":
                return {"Capabilities": {"Scope": "global"}}
            case "VolumeDriver.List":
                names = sorted(p.name for p in (self.folder / "volumes").iterdir())
                return {"Volumes": [self.shown(n) for n in names], "Err": ""}
            case "VolumeDriver.Create":
                if "refuse" in (body.get("Opts") or {}):
                    return {"Err": "I refuse"}
                (home / "data").mkdir(parents=True)
                (home / "opts").write_text(json.dumps(body.get("Opts")))
                return {"Err": ""}
        if not home.is_dir():
            return {"Err": f"I know no volume {name}"}
        return self.of_one(method, name, body.get("ID", ""))

    def of_one(self, method: str, name: str, user: str) -> dict[str, Any]:
        home = self.folder / "volumes" / name
        match method.partition(".")[2]:
            case "Get":
                return {"Volume": self.shown(name), "Err": ""}
            case "Path":
                return {"Mountpoint": str(home / "data"), "Err": ""}
            case "Mount":
                (home / f"user-{user}").touch()
                return {"Mountpoint": str(home / "data"), "Err": ""}
            case "Unmount":
                (home / f"user-{user}").unlink()
                return {"Err": ""}
            case "Remove":
                if users := [p.name for p in home.glob("user-*")]:
                    return {"Err": f"still mounted: {users}"}
                shutil.rmtree(home)
                return {"Err": ""}
        return {"Err": f"what is {method}?"}

    def shown(self, name: str) -> dict[str, Any]:
        home = self.folder / "volumes" / name
        return {"Name": name, "Mountpoint": str(home / "data"), "Status": {"mood": "good"}}


class Handler(BaseHTTPRequestHandler):
    volumes: Volumes

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size) or b"{}")
        method = self.path.strip("/")
        with (self.volumes.folder / "calls").open("a") as calls:
            calls.write(f"{method} {body.get('Name', '')}\n")
        lie = self.volumes.folder / "lies" / method.partition(".")[2]
        told = lie.read_text() if lie.exists() else None
        if told == "hang":
            time.sleep(600)
        if told == "die":
            os._exit(1)
        answer = told.encode() if told is not None else None
        content = answer or json.dumps(self.volumes.answer(method, body)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""

    def address_string(self) -> str:
        return "unix"


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def main() -> None:
    socket, folder = Path(sys.argv[1]), Path(sys.argv[2])
    Handler.volumes = Volumes(folder)
    socket.parent.mkdir(parents=True, exist_ok=True)
    socket.unlink(missing_ok=True)
    with Server(str(socket), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
