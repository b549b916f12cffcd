"""Runs the tests, and says in its last line how many passed, failed and were left out.

  run.py [FILTER]...   all of them, or those whose path has one of these in it; without root, those
                       that need it are left out and named
  run.py --quick       in under a minute, without root: unit tests, and integration tests that need
                       neither a program that is fetched nor one of the distribution's
"""

import os
import re
import subprocess
import sys

CARGO = ["cargo", "--locked", "test"]
# Integration tests that make namespaces, mount, or run as another user: the beginning of their path.
ROOT = """
  kube::addresses:: kube::names:: kube::network::
  output::storage::a_directory_ output::storage::a_disk_ output::storage::a_file_system_
  output::storage::a_right_ output::storage::a_set_ output::storage::no_other_group_
  output::storage::two_uids_ output::storage::files_of_an_image_layer_
  output::storage::where_two_uids_
  weights::cluster_domain::a_virtual_host
""".split()
# Integration tests that are quick and need nothing.
QUICK = """
  app::fuzz_checks:: cli::command_line:: cli::environment:: cli::usage:: kit::apiserver::
  kit::faults:: kit::process:: kit::semantics:: kit::tls::
  kube::credentials:: kube::listwatch:: kube::wire:: output::lock:: weights::versions::
""".split()
# Models, random documents, and directories that are cut off at every call, which take longer.
SLOW_UNITS = ["model", "properties", "herd", "directory::tests"]


def beginning(prefixes, path):
    """The one of these prefixes that a path, or a part of it, begins with."""
    return next((prefix for prefix in prefixes if ("::" + path).find("::" + prefix) >= 0), None)


def integration_tests():
    listed = subprocess.run(CARGO + ["--test", "it", "--", "--list"], stdout=subprocess.PIPE, text=True)
    if listed.returncode:
        sys.exit(listed.returncode)
    return re.findall(r"^(\S+): test$", listed.stdout, re.M)


def chosen(paths, prefixes):
    """The tests that have one of these prefixes; each prefix must have a test."""
    found = {path: beginning(prefixes, path) for path in paths}
    for prefix in set(prefixes) - set(found.values()):
        sys.exit(f"tests/run.py names {prefix}, but no test begins with it")
    return [path for path in paths if found[path]]


def run(arguments, counts, **variables):
    """Runs cargo and adds up what its tests say of themselves. Returns its exit code."""
    process = subprocess.Popen(
        CARGO + arguments, stdout=subprocess.PIPE, text=True, env={**os.environ, **variables}
    )
    for line in process.stdout:
        print(line, end="", flush=True)
        result = re.match(r"test result: .*? (\d+) passed; (\d+) failed;", line)
        if result:
            counts[0] += int(result[1])
            counts[1] += int(result[2])
    return process.wait()


def main(arguments):
    paths = integration_tests()
    needs_root, quick = chosen(paths, ROOT), chosen(paths, QUICK)
    counts, left_out = [0, 0], []
    if arguments == ["--quick"]:
        units = [word for name in SLOW_UNITS for word in ("--skip", name)]
        code = run(["--lib", "--", "--quiet", *units], counts, PROPTEST_CASES="64")
        # Nearly all of them wait for something, so many go at once.
        code |= run(["--test", "it", "--", "--quiet", "--test-threads=8", "--exact", *quick], counts)
    else:
        if os.geteuid() != 0:
            left_out = [path for path in needs_root if not arguments or any(f in path for f in arguments)]
        skips = [word for path in left_out for word in ("--skip", path)]
        code = run(["--no-fail-fast", "--", *arguments, *skips], counts)
    for path in left_out:
        print(f"left out, as it needs root: {path}")
    skipped = f", {len(left_out)} skipped" if left_out else ""
    print(f"{counts[0]} passed, {counts[1]} failed{skipped}")
    sys.exit(1 if code else 0)


main(sys.argv[1:])
