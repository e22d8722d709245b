"""What the runners of the public suites share: running a command natively and inside, comparing, reporting.

A suite is a set of named cases, each with a status: `pass`, `fail`, `skip` or `hang`. A case is *worse* when it
passes natively and does anything else inside; it is *unexplained* when `tests/expectations/SUITE*.toml` does not
name it. One that the file names and that passes inside has to leave the file, unless its entry says
`sometimes = true`.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import tomllib

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# How many unexplained cases of a unit are printed; all are in the JSON file.
MAX_SHOWN = 40

# Fresh namespaces, so that a suite that runs as root natively neither sees the host's network and processes nor
# leaves any behind; and none of the capabilities by which it would change the host: its clock, its kernel.
NATIVE = ["setpriv", "--bounding-set=-sys_time,-sys_boot,-sys_module,-sys_rawio,-syslog", "unshare", "--fork", "--kill-child", "--pid", "--mount-proc", "--mount", "--net", "--ipc", "--uts",
          "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]


def parser(description):
    """Returns the options that every runner has."""
    # An end from outside takes the running command along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--runsc", default=os.environ.get("RUNSC", "runsc"), help="the runtime [RUNSC]")
    options.add_argument("--platform", default="systrap", choices=["systrap", "ptrace"])
    options.add_argument("--json", metavar="FILE", help="where the results go")
    options.add_argument("--resume", action="store_true", help="keep the results that FILE has already")
    options.add_argument("--again", action="store_true", help="keep FILE's native results, run inside again")
    options.add_argument("--limit", type=int, default=300, help="seconds for one command")
    return options


def inside(options):
    """Returns the words that put a command into the sandbox, as on the other side below a first process: a session's
    leader would get a terminal that it opens as its own, and be ended with it."""
    return [options.runsc, "--platform", options.platform, "do", "sh", "-c", '"$@"; exit $?', "sh"]


def run(words, limit, cwd=None, env=None):
    """Runs a command; returns its exit status (None for one that was ended) and what it has written."""
    with tempfile.TemporaryFile() as out:
        child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                 cwd=cwd, env=env, start_new_session=True)
        try:
            code = child.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            # Whatever the command has started goes with it: the namespace's first process, or the sandbox.
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            child.wait()
        out.seek(0)
        return code, out.read().decode(errors="replace")


class Results:
    """The results of a suite, unit by unit (a module, a package, a stressor); written after each."""

    def __init__(self, suite, options):
        self.suite, self.options = suite, options
        self.units = {}
        if options.json and (options.resume or options.again) and os.path.exists(options.json):
            with open(options.json) as file:
                self.units = json.load(file)["units"]

    def unit(self, name, measure):
        """Runs a unit on both sides: `measure(prefix)` returns a dictionary from case to status."""
        sides = self.units.setdefault(name, {})
        todo = [("native", NATIVE), (self.options.platform, inside(self.options))]
        for side, prefix in todo:
            stale = self.options.again and side != "native"
            if side in sides and not stale:
                continue
            started = time.monotonic()
            sides[side] = measure(prefix)
            sides.setdefault("seconds", {})[side] = round(time.monotonic() - started, 1)
            self.save()
        worse = [case for case, status in self.cases() if case.startswith(name + "/") and status != "pass"]
        print(f"{name}: {len(sides['native'])} cases, {len(worse)} worse", flush=True)

    def save(self):
        if not self.options.json:
            return
        new = f"{self.options.json}.{os.getpid()}"
        with open(new, "w") as file:
            json.dump({"suite": self.suite, "units": self.units}, file, indent=1)
        os.replace(new, self.options.json)

    def cases(self):
        """Returns name and status inside of each case that passes natively."""
        for unit, sides in sorted(self.units.items()):
            there = sides.get(self.options.platform, {})
            for case, status in sorted(sides.get("native", {}).items()):
                if status == "pass":
                    yield f"{unit}/{case}", there.get(case, "missing")

    def report(self):
        """Prints what is not as expected and the line of the suite; returns the exit status."""
        known = expectations(self.suite, self.options.platform)
        n_native = n_inside = n_unexplained = n_mended = 0
        shown = {}
        for case, status in self.cases():
            n_native += 1
            n_inside += status == "pass"
            entry = next((entry for entry in known if matches(entry["name"], case)), None)
            if status != "pass" and entry is None:
                n_unexplained += 1
                unit = next(unit for unit in self.units if case.startswith(unit + "/"))
                shown[unit] = shown.get(unit, 0) + 1
                if shown[unit] <= MAX_SHOWN:
                    print(f"  {status}: {case}")
            elif status == "pass" and entry and not entry["name"].endswith("*") and not entry.get("sometimes"):
                n_mended += 1
                print(f"  passes, so its entry has to go: {case}")
        for unit, n in shown.items():
            if n > MAX_SHOWN:
                print(f"  and {n - MAX_SHOWN} more of {unit}")
        print(f"{self.suite} ({self.options.platform}): native pass {n_native}, inside pass {n_inside}, "
              f"unexplained {n_unexplained}")
        return 1 if n_unexplained or n_mended else 0


def expectations(suite, platform):
    """Reads the known failures of a suite."""
    known = []
    for name in (suite, f"{suite}-{platform}"):
        path = os.path.join(TESTS, "expectations", f"{name}.toml")
        if os.path.exists(path):
            with open(path, "rb") as file:
                known += tomllib.load(file).get("expect", [])
    return known


def matches(name, case):
    return case.startswith(name[:-1]) if name.endswith("*") else case == name


def finish(results):
    sys.exit(results.report())
