"""The man page and the program know the same options."""

import pathlib
import re
import unittest

import peers

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "man" / "ringway.1"


class ManPage(peers.Case):

    def documented(self, section):
        text = PAGE.read_text().split(f".Ss ringway {section}\n")[1]
        text = re.split(r"^\.S[sh] ", text, maxsplit=1, flags=re.M)[0]
        tags = [line for line in text.splitlines() if line.startswith(".It ")]
        return {f"--{name}" for tag in tags for name in re.findall(r"Fl -([a-z-]+)", tag)}

    def offered(self, *command):
        done = self.run_ringway(*command, "--help")
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = re.findall(r"^ {2}(-\S+)", done.stdout, re.M)
        return {option for line in lines for option in re.findall(r"--[a-z-]+", line)} - {"--help"}

    def check(self, section):
        documented, offered = self.documented(section), self.offered(*section.split())
        self.assertGreater(len(documented), 2)
        # What is there by itself needs no name: --indirect beside --no-indirect.
        ways = {option for option in offered if option.replace("--", "--no-", 1) in offered}
        self.assertEqual(documented - offered, set())
        self.assertEqual(offered - documented - ways, set())

    def test_probe(self):
        self.check("probe")

    def test_cuse(self):
        self.check("cuse")

    def test_check(self):
        self.check("check back-end")
        self.check("check front-end")

    def test_bench(self):
        self.check("bench blk")
        self.check("bench net")

    def test_bridge(self):
        self.check("bridge")

    def test_trace(self):
        self.check("trace")

    def test_proxy(self):
        self.check("proxy")

    def test_upgrade(self):
        self.check("upgrade")


if __name__ == "__main__":
    unittest.main()
