"""Takes words by HTTP and queues them; shows what the workers have found."""

import json
import os
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2
import redis

queue = redis.Redis(os.environ["QUEUE"])


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/api/health":
            self.answer({"ok": queue.ping()})
            return
        with psycopg2.connect(os.environ["DATABASE"]) as database, database.cursor() as cursor:
            cursor.execute("SELECT word, length, worker FROM result ORDER BY id")
            self.answer(cursor.fetchall())

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        for word in urllib.parse.parse_qs(body).get("word", []):
            queue.rpush("words", word)
        self.answer({"queued": True})

    def answer(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, form, *values):
        print(form % values, flush=True)


ThreadingHTTPServer(("", 8000), Handler).serve_forever()
