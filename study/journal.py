"""Finished pieces of work, as JSON lines: what was interrupted goes on from there."""

import json


class Journal:
    def __init__(self, path, resume):
        self.path = path
        self.known = {}
        if resume and path.exists():
            for line in path.read_text().splitlines():
                try:
                    entry = json.loads(line)
                    self.known[self._key(entry["key"])] = entry["value"]
                except (ValueError, KeyError, TypeError):
                    continue  # cut short when the work was
        elif path.exists():
            path.unlink()

    @staticmethod
    def _key(parts):
        return json.dumps(parts)

    def get(self, *parts):
        return self.known.get(self._key(parts))

    def keep(self, value, *parts):
        self.known[self._key(parts)] = value
        with open(self.path, "a", encoding="utf-8") as out:
            out.write("\n" + json.dumps({"key": parts, "value": value}) + "\n")
        return value
