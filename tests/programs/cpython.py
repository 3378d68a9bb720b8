"""Runs a module of CPython's own tests, or some of its cases, and writes a line for each case into a file.

Arguments: the file, then names for the loader. A line is the outcome, a tab and the case; `started` comes before
each outcome, and `end` is the last line. What failed is explained on standard error.
"""

import faulthandler
import os
import sys
import traceback
import unittest

from test import support
from test.support import os_helper

# A case that takes longer says where it is; the Rust side kills it soon afterwards.
SLOWEST_CASE = 100

# They wait for ever where the machine's monitor has virtual sockets without a loopback.
LEFT_OUT = "VSOCK"


class Lines(unittest.TestResult):
    def __init__(self, file):
        super().__init__()
        self.file = file

    def say(self, outcome, test):
        self.file.write(f"{outcome}\t{test.id()}\n")

    def startTest(self, test):
        super().startTest(test)
        faulthandler.dump_traceback_later(SLOWEST_CASE)
        self.outcome = "passed"
        self.say("started", test)

    def stopTest(self, test):
        super().stopTest(test)
        self.say(self.outcome, test)

    def explain(self, test, error):
        # Said at once: what fails in a class's set-up belongs to no case.
        self.outcome = "failed"
        self.say("failed", test)
        print("FAILED", test.id(), file=sys.stderr)
        traceback.print_exception(*error, file=sys.stderr)
        sys.stderr.flush()

    def addError(self, test, error):
        self.explain(test, error)

    def addFailure(self, test, error):
        self.explain(test, error)

    def addSubTest(self, test, subtest, error):
        if error is not None:
            self.explain(test, error)

    def addSkip(self, test, reason):
        self.outcome = "skipped"

    def addExpectedFailure(self, test, error):
        self.outcome = "failed as expected"

    def addUnexpectedSuccess(self, test):
        self.outcome = "passed unexpectedly"


def cases(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from cases(test)
        elif LEFT_OUT not in test.id():
            yield test


def main(results, *names):
    support.use_resources = ["cpu", "subprocess", "walltime"]
    if {"test.test_socketserver", "test.test_timeout"} & {".".join(name.split(".")[:2]) for name in names}:
        # They ask for it, and use the loopback interface.
        support.use_resources.append("network")
    faulthandler.enable()
    with open(results, "w", buffering=1) as file, os_helper.temp_cwd():
        try:
            suite = unittest.defaultTestLoader.loadTestsFromNames(names)
        except unittest.SkipTest as reason:
            file.write(f"skipped\t{' '.join(names)}: {reason}\n")
        else:
            unittest.TestSuite(cases(suite)).run(Lines(file))
        file.write("end\n")
    # Not by returning: what a case left behind, a thread or a process, would be waited for.
    sys.stderr.flush()
    os._exit(0)


main(*sys.argv[1:])
