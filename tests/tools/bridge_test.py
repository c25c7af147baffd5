"""ringway bridge where there is nothing to bridge: what users read then, and that nothing is left behind. What it does
with a real kernel is tested in tests/kernel."""

import pathlib
import tempfile
import unittest

import peers


class BridgeErrors(peers.Case):

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.socket = self.folder / "bridge.sock"

    def refuses(self, sentence, *arguments, user=None):
        done = self.run_ringway("bridge", *map(str, arguments), user=user)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn(sentence, done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertFalse(self.socket.exists())

    def vsock(self, path, cid=42):
        return path, f"--guest-cid={cid}", f"--socket-path={self.socket}"

    def test_a_missing_file(self):
        self.refuses("is the module vhost_vsock loaded?", *self.vsock(self.folder / "vhost-vsock"))

    def test_a_file_that_is_not_vhost(self):
        path = self.folder / "vhost-vsock"
        path.write_bytes(b"")
        self.refuses("is not a file of the kernel's vhost", *self.vsock(path))

    def test_a_file_that_may_not_be_opened(self):
        self.folder.chmod(0o755)
        path = self.folder / "vhost-vsock"
        path.write_bytes(b"")
        path.chmod(0)
        self.refuses("you may not use", *self.vsock(path), user=peers.NOBODY)

    def test_a_missing_file_comes_before_a_tap_that_cannot_be_made(self):
        self.refuses("is the module vhost_net loaded?", self.folder / "vhost-net", f"--socket-path={self.socket}",
                     f"--tap={'x' * 20}")

    def test_an_unknown_name(self):
        self.refuses("known are files whose names begin with", *self.vsock(self.folder / "vhost-blk"))

    def test_options_of_another_family(self):
        self.refuses("--guest-cid is for vhost-vsock, which needs it", self.folder / "vhost-vsock",
                     f"--socket-path={self.socket}")
        self.refuses("--wwpn is for vhost-scsi, which needs it", self.folder / "vhost-scsi",
                     f"--socket-path={self.socket}")
        self.refuses("exactly one of --tap and --tap-fd", self.folder / "vhost-net", f"--socket-path={self.socket}")
        self.refuses("--tap and --tap-fd are for vhost-net", *self.vsock(self.folder / "vhost-vsock"), "--tap=t0")

    def test_neither_socket_nor_fd(self):
        self.refuses("exactly one of --socket-path and --fd", self.folder / "vhost-vsock", "--guest-cid=42")

    def test_a_reserved_cid(self):
        path = self.folder / "vhost-vsock"
        path.write_bytes(b"")
        self.refuses("a guest's CID is 3 to 4294967294", *self.vsock(path, cid=2))


if __name__ == "__main__":
    unittest.main()
