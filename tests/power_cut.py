"""What a disk may hold when the power goes: the calls that fail_calls.cpp has logged (FAIL_LOG), replayed to some point,
without what nothing had brought to the disk by then.

The model is what POSIX promises and journaling file systems keep. Bytes of a file are safe behind an fsync of it; of
those written since, each write is there or not, and what is missing of a file that was made long reads as zeros. Names
in a folder are safe behind an fsync of the folder; of the changes since, the first few are there."""
import os


class File:
    def __init__(self):
        self.safe = bytearray()
        self.pending = []  # (place, bytes), or (size, None) of a file that was made so long

    def apply(self, place, data):
        if data is None:
            self.safe = self.safe[:place] + bytes(max(0, place - len(self.safe)))
            return
        self.safe += bytes(max(0, place + len(data) - len(self.safe)))
        self.safe[place : place + len(data)] = data

    def sync(self):
        for place, data in self.pending:
            self.apply(place, data)
        self.pending = []

    def cut(self, rng):
        """An append that is lost ends the file: a file system makes it longer when it has the bytes."""
        for place, data in self.pending:
            if data is None or (rng.random() < 0.5 and place <= len(self.safe)):
                self.apply(place, data)
        return bytes(self.safe)


class Folder:
    def __init__(self):
        self.names = {}
        self.safe = {}
        self.pending = []  # changes of `safe`: each a dictionary name -> entry, None where it goes

    def change(self, changes):
        self.pending.append(changes)
        self.apply(self.names, changes)

    @staticmethod
    def apply(names, changes):
        for name, entry in changes.items():
            if entry is None:
                names.pop(name, None)
            else:
                names[name] = entry

    def sync(self):
        self.safe = dict(self.names)
        self.pending = []

    def cut(self, rng):
        names = dict(self.safe)
        for changes in self.pending[: rng.randint(0, len(self.pending))]:
            self.apply(names, changes)
        return names


def read_log(path):
    """The calls of a log: (name, path, other path, place, bytes)."""
    calls = []
    with open(path, "rb") as log:
        while line := log.readline():
            name, first, second, place, size = line.decode().rstrip("\n").split("\t")
            calls.append((name, first, second, int(place), log.read(int(size))))
    return calls


class Disk:
    """A folder, empty at first, that calls change."""

    def __init__(self, root):
        self.root = root
        self.top = Folder()

    def place_of(self, path):
        """The folder that an entry is in, and its name there; no folder where that is gone."""
        parts = os.path.relpath(path, self.root).split("/")
        folder = self.top
        for part in parts[:-1]:
            folder = folder.names.get(part) if isinstance(folder, Folder) else None
        return (folder if isinstance(folder, Folder) else None), parts[-1]

    def entry(self, path):
        if os.path.relpath(path, self.root) == ".":
            return self.top
        folder, name = self.place_of(path)
        return folder.names.get(name) if folder is not None else None

    def do(self, call):
        name, path, other, place, data = call
        folder, last = self.place_of(path)
        entry = self.entry(path)
        if name in ("create", "mkdir") and entry is None and folder is not None:
            folder.change({last: File() if name == "create" else Folder()})
        elif name == "unlink" and folder is not None:
            folder.change({last: None})
        elif name in ("rename", "exchange") and entry is not None:
            target, target_name = self.place_of(other)
            there = target.names.get(target_name) if name == "exchange" else None
            if target is folder:
                folder.change({last: there, target_name: entry})
            else:
                target.change({target_name: entry})
                folder.change({last: there})
        elif name == "fsync" and entry is not None:
            entry.sync()
        elif isinstance(entry, File) and name == "write":
            entry.pending.append((place, data))
        elif isinstance(entry, File) and name == "truncate":
            entry.pending.append((place, None))

    def cut(self, target, rng):
        """Writes what the disk holds after a power cut to a new folder."""
        self._write(self.top, target, rng)

    def _write(self, folder, target, rng):
        os.makedirs(target)
        for name, entry in folder.cut(rng).items():
            if isinstance(entry, Folder):
                self._write(entry, os.path.join(target, name), rng)
            else:
                with open(os.path.join(target, name), "wb") as file:
                    file.write(entry.cut(rng))
