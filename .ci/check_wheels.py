"""Checks the wheels in a folder: each has its platform's library, which exports one function and needs libc alone."""

from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path

import lief

#: By the wheel's platform: the library's name, its format and processor, and what it may load.
EXPECTED = {
    "manylinux2014_x86_64.manylinux_2_17_x86_64": (".so", "ELF", "X86_64", r"libc\.so\.6|ld-linux-x86-64\.so\.2"),
    "manylinux2014_aarch64.manylinux_2_17_aarch64": (".so", "ELF", "AARCH64", r"libc\.so\.6|ld-linux-aarch64\.so\.1"),
    "macosx_11_0_x86_64": (".dylib", "MACHO", "X86_64", r"/usr/lib/libSystem\.B\.dylib"),
    "macosx_11_0_arm64": (".dylib", "MACHO", "ARM64", r"/usr/lib/libSystem\.B\.dylib"),
    "win_amd64": (".dll", "PE", "AMD64", r"KERNEL32\.dll|api-ms-win-crt-[a-z]+-l1-1-0\.dll"),
    "win_arm64": (".dll", "PE", "ARM64", r"KERNEL32\.dll|api-ms-win-crt-[a-z]+-l1-1-0\.dll"),
}


#: What zig's linker adds to what a library for macOS exports.
LINKERS_OWN = {"_mh_dylib_header", "__dso_handle"}


def exported(binary: lief.Binary) -> set[str]:
    """Return the names that whoever loads the library can look up."""
    if isinstance(binary, lief.PE.Binary):
        return {entry.name for entry in binary.get_export().entries}
    if isinstance(binary, lief.ELF.Binary):
        return {symbol.name for symbol in binary.exported_symbols}
    return {entry.symbol.name.removeprefix("_") for entry in binary.dyld_info.exports} - LINKERS_OWN


def needed(binary: lief.Binary) -> list[str]:
    """Return the libraries that are loaded with this one."""
    if isinstance(binary, lief.PE.Binary):
        return [library.name for library in binary.imports]
    if isinstance(binary, lief.ELF.Binary):
        return list(binary.libraries)
    own = lief.MachO.LoadCommand.TYPE.ID_DYLIB
    return [library.name for library in binary.libraries if library.command != own]


def mac_faults(binary: lief.MachO.Binary) -> list[str]:
    """Return what macOS would refuse: it loads nothing unsigned on arm64, and nothing made for a later version."""
    faults = []
    if binary.header.file_type != lief.MachO.Header.FILE_TYPE.DYLIB:
        faults.append(f"it is a {binary.header.file_type}")
    if list(binary.build_version.minos[:2]) != [11, 0]:
        faults.append(f"it asks for macOS {binary.build_version.minos}")
    if binary.header.cpu_type == lief.MachO.Header.CPU_TYPE.ARM64 and not binary.has_code_signature:
        faults.append("it is not signed")
    return faults


def faults_of(wheel: Path) -> list[str]:
    """Return what is wrong with one wheel."""
    platform = wheel.stem.split("-none-")[1]
    suffix, kind, machine, libraries = EXPECTED[platform]
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if re.search(r"\.(so|dylib|dll|pdb|lib|a)$", name)]
        wanted = f"onnx_spatialdrop/kernels/libonnx_spatialdrop{suffix}"
        if names != [wanted]:
            return [f"its libraries are {names}, not {[wanted]}"]
        metadata = archive.read(next(n for n in archive.namelist() if n.endswith(".dist-info/WHEEL"))).decode()
        binary = lief.parse(list(archive.read(wanted)))
    faults = []
    tags = {f"py3-none-{one}" for one in platform.split(".")}
    if set(re.findall(r"(?m)^Tag: (.*)$", metadata)) != tags or "Root-Is-Purelib: false" not in metadata:
        faults.append(f"its tags are not those of its name:\n{metadata}")
    header = binary.header
    found = header.cpu_type if isinstance(binary, lief.MachO.Binary) else getattr(header, "machine_type", None)
    found = found or header.machine
    if (binary.format.name, found.name) != (kind, machine):
        faults.append(f"it is for {binary.format.name} {found.name}")
    if exported(binary) != {"RegisterCustomOps"}:
        faults.append(f"it exports {sorted(exported(binary))}")
    faults += [f"it needs {name}" for name in needed(binary) if re.fullmatch(libraries, name) is None]
    return faults + (mac_faults(binary) if isinstance(binary, lief.MachO.Binary) else [])


def main() -> int:
    """Print what is wrong, and return how many wheels are missing or wrong."""
    wheels = {path.stem.split("-none-")[1]: path for path in Path(sys.argv[1]).glob("*.whl")}
    wrong = [f"no wheel for {platform}" for platform in EXPECTED if platform not in wheels]
    wrong += [f"a wheel for {platform}" for platform in wheels if platform not in EXPECTED]
    for platform, wheel in wheels.items():
        if platform in EXPECTED:
            wrong += [f"{wheel.name}: {fault}" for fault in faults_of(wheel)]
    print("\n".join(wrong) or f"{len(wheels)} wheels hold the libraries that they should")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
