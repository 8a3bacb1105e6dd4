"""Command lines and domains: what QEMU and libvirt are told."""

import unittest
from pathlib import Path
from unittest import mock
from xml.etree import ElementTree

import context  # noqa: F401
from vmlab_lib import libvirt, machine, nested
from vmlab_lib.errors import LabError
from vmlab_lib.kernels import Kernel, find_releases

HOME = Path("/run/lab/g")
KERNEL = Kernel("6.1", "6.1.0-1-amd64", Path("/boot/vmlinuz"), Path("/lib/modules/6.1"))


def command(**options):
    with mock.patch("vmlab_lib.initramfs.build", return_value="/initrd"), \
         mock.patch("vmlab_lib.qemus.find", return_value=(["qemu"], {})), \
         mock.patch("vmlab_lib.disk.image", return_value="/disk.raw"):
        options = machine.Options(**({"accel": "tcg"} | options))
        return machine.command(options, None if options.installed else KERNEL, "g", HOME)[0]


def value(line, option):
    return line[line.index(option) + 1]


class CommandLine(unittest.TestCase):
    def test_defaults(self):
        line = command()
        self.assertEqual([value(line, option) for option in ("-machine", "-m", "-accel", "-cpu", "-smp", "-kernel")],
                         ["pc", "512M", "tcg", "max", "1", "/boot/vmlinuz"])
        self.assertIn("unix:/run/lab/g/qmp,server=on,wait=off", line)

    def test_no_monitor_for_the_product(self):
        self.assertNotIn("unix:/run/lab/g/qmp,server=on,wait=off", command(qmp=False))

    def test_agents_have_their_ports(self):
        line = command(agent=True)
        self.assertIn("virtserialport,chardev=agent,name=org.vmsight.agent.0", line)
        self.assertIn("socket,id=qga,path=/run/lab/g/qga,server=on,wait=off", line)
        self.assertFalse([word for word in command() if "agent" in word])
        with self.assertRaises(LabError):
            command(kernel="disk", agent=True)

    def test_backends(self):
        self.assertIn("memory-backend-memfd,id=ram,size=5368709120,share=on", command(backend="memfd", mem="5G"))
        self.assertEqual(value(command(backend="file"), "-machine"), "pc,memory-backend=ram")
        self.assertIn("node,nodeid=1,memdev=ram1", command(backend="numa"))
        with self.assertRaises(LabError):
            command(backend="paper")

    def test_paging(self):
        self.assertEqual(value(command(la57=True), "-cpu"), "max,la57=on")
        self.assertEqual(value(command(la57=False), "-cpu"), "max,la57=off")

    def test_microvm_has_no_pci(self):
        line = command(machine="microvm", net=True)
        self.assertFalse([word for word in line if "-pci" in word])

    def test_kernel_arguments(self):
        words = value(command(append="a=b", pti=True), "-append").split()
        self.assertEqual(words[-2:], ["a=b", "pti=on"])

    def test_disk(self):
        line = command(kernel="disk")
        self.assertNotIn("-kernel", line)
        self.assertEqual(value(line, "-m"), "1024M")
        self.assertIn("if=none,id=system,format=raw,file=/disk.raw,snapshot=on", line)

    def test_disk_needs_firmware(self):
        with self.assertRaises(LabError):
            command(kernel="disk", machine="microvm")
        with self.assertRaises(LabError):
            command(kernel="disk", firmware="coreboot")

    def test_sizes(self):
        for wish, size in (("512M", 512 << 20), ("5G", 5 << 30), ("64", 64 << 20), ("1GiB", 1 << 30)):
            self.assertEqual(machine.parse_size(wish), size)
        with self.assertRaises(LabError):
            machine.parse_size("much")


class Domain(unittest.TestCase):
    def domain(self, **options):
        options = machine.Options(**({"accel": "tcg"} | options))
        return ElementTree.fromstring(libvirt.domain_xml(options, "a<b", HOME))

    def test_domain(self):
        domain = self.domain(mem="1G", cpus=2, append="x=<y>")
        self.assertEqual(domain.get("type"), "qemu")
        self.assertEqual((domain.findtext("name"), domain.findtext("memory"), domain.findtext("vcpu")),
                         ("a<b", "1024", "2"))
        self.assertTrue(domain.findtext("os/cmdline").endswith("x=<y>"))

    def test_backing(self):
        self.assertIsNone(self.domain().find("memoryBacking"))
        self.assertEqual(self.domain(backend="memfd").find("memoryBacking/source").get("type"), "memfd")
        with self.assertRaises(LabError):
            self.domain(backend="numa")


class Kernels(unittest.TestCase):
    def releases(self, flavour, *packages):
        apt = mock.Mock()
        apt.names = lambda prefix: [name for name in packages if name.startswith(prefix)]
        return find_releases(apt, "6.1", flavour)

    def test_one_package(self):
        names = ["linux-image-6.1.0-9-amd64", "linux-image-6.1.0-9-cloud-amd64", "linux-image-6.12.0-9-amd64",
                 "linux-image-6.1.0-9-amd64-dbg", "linux-image-6.1.0-9-amd64-unsigned"]
        self.assertEqual(self.releases(None, *names), {"6.1.0-9-amd64": ["linux-image-6.1.0-9-amd64"]})
        self.assertEqual(list(self.releases("cloud", *names)), ["6.1.0-9-cloud-amd64"])

    def test_image_and_modules_apart(self):
        found = self.releases(None, "linux-image-6.1.3+deb14-amd64", "linux-binary-6.1.3+deb14-amd64")
        self.assertEqual(found, {"6.1.3+deb14-amd64": ["linux-binary-6.1.3+deb14-amd64",
                                                       "linux-modules-6.1.3+deb14-amd64"]})


class NestedHost(unittest.TestCase):
    def test_command_line(self):
        with mock.patch("vmlab_lib.qemus.find", return_value=(["qemu"], {})):
            line, _ = nested.command_line(HOME, KERNEL, "3G", 2)
        self.assertIn("max,+svm", line)
        self.assertTrue([word for word in line if "path=/," in word and "readonly=on" in word])


if __name__ == "__main__":
    unittest.main()
