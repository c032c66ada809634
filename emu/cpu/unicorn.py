"""The part of Unicorn's library that the engine uses, under the names of the package's own Python.

The package loads a class and the registers of every architecture, and a third of the standard library with them: 10 ms
on each start of pyemu. It may be used in the same process, on the same library.
"""

import ctypes
import weakref
from contextlib import suppress
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any

from emu.cpu import library

__all__ = ["Uc", "UcError", "__version__", "riscv_const", "uclib"]

UC_ARCH_RISCV = 8
UC_MODE_RISCV64 = 8

UC_ERR_OK = 0
UC_ERR_READ_UNMAPPED = 6
UC_ERR_WRITE_UNMAPPED = 7
UC_ERR_FETCH_UNMAPPED = 8
UC_ERR_FETCH_PROT = 14
UC_ERR_EXCEPTION = 21

UC_PROT_READ = 1
UC_PROT_EXEC = 4
UC_PROT_ALL = 7

UC_HOOK_INTR = 1
UC_HOOK_CODE = 1 << 2
UC_HOOK_BLOCK = 1 << 3
UC_HOOK_MEM_WRITE_UNMAPPED = 1 << 5
UC_HOOK_INSN_INVALID = 1 << 14
UC_HOOK_EDGE_GENERATED = 1 << 15

UC_CTL_IO_WRITE = 1
UC_CTL_UC_USE_EXITS = 4
UC_CTL_TB_REMOVE_CACHE = 9
UC_CTL_TB_FLUSH = 10
UC_CTL_TLB_FLUSH = 11
UC_CTL_TCG_BUFFER_SIZE = 13

_U32, _U64, _POINTER = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p
_PROTOTYPES = {
    "uc_open": (_U32, _U32, _POINTER),
    "uc_close": (_POINTER,),
    "uc_ctl": (_POINTER, _U32),  # further arguments depend on the second
    "uc_emu_start": (_POINTER, _U64, _U64, _U64, ctypes.c_size_t),
    "uc_emu_stop": (_POINTER,),
    "uc_hook_del": (_POINTER, ctypes.c_size_t),
    "uc_hook_add": (_POINTER, _POINTER, ctypes.c_int, _POINTER, _POINTER, _U64, _U64),
    "uc_mem_map_ptr": (_POINTER, _U64, _U64, _U32, _POINTER),
    "uc_mmio_map": (_POINTER, _U64, _U64, _POINTER, _POINTER, _POINTER, _POINTER),
    "uc_reg_write": (_POINTER, ctypes.c_int, _POINTER),
    "uc_vmem_translate": (_POINTER, _U64, _U32, _POINTER),
}


#: Of mallopt (malloc.h): the largest piece that free() leaves as it is.
_M_MXFAST = 1


def _load_library() -> ctypes.CDLL:
    path = library.path()
    if path is None:
        from unicorn.unicorn_py3 import unicorn  # noqa: PLC0415 - it knows other systems and places

        path = unicorn.uclib._name  # noqa: SLF001
    loaded = ctypes.CDLL(str(path))
    for name, arguments in _PROTOTYPES.items():
        getattr(loaded, name).argtypes = arguments
    loaded.uc_strerror.restype = ctypes.c_char_p
    # Unicorn frees tens of thousands of small pieces at once when its buffer is full. glibc would put them together
    # when somebody asks for 1 kB the next time: 1 to 6 ms, in the middle of any callback.
    with suppress(AttributeError):  # only glibc has it
        ctypes.CDLL(None).mallopt(_M_MXFAST, 0)
    return loaded


def _load_constants(name: str) -> Any:
    spec = spec_from_file_location(f"{__name__}.{name}", library.package() / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


uclib = _load_library()
riscv_const = _load_constants("riscv_const")
#: The library's own version: one byte each for major, minor and patch, and a last one for pre-releases.
__version__ = ".".join(map(str, uclib.uc_version(None, None).to_bytes(4, "big")[:3]))


class UcError(Exception):
    """An error returned by a function of Unicorn, with Unicorn's text."""

    def __init__(self, error: int) -> None:
        super().__init__(uclib.uc_strerror(error).decode())


class Uc:
    """A Unicorn engine, like its package's class. Raises UcError when Unicorn refuses something."""

    def __init__(self, architecture: int, mode: int) -> None:
        self._uch: Any = _POINTER()
        _try(uclib.uc_open(architecture, mode, ctypes.byref(self._uch)))
        weakref.finalize(self, uclib.uc_close, self._uch)

    def mem_map_ptr(self, address: int, size: int, access: int, memory: int) -> None:
        """Map ``size`` bytes of our ``memory`` at ``address``."""
        _try(uclib.uc_mem_map_ptr(self._uch, address, size, access, memory))

    def reg_write(self, register: int, value: int) -> None:
        """Write a register that ``riscv_const`` names."""
        _try(uclib.uc_reg_write(self._uch, register, ctypes.byref(_U64(value))))

    def ctl(self, control: int, direction: int, *arguments: Any) -> None:
        """Change a setting, anything but registers and memory."""
        _try(uclib.uc_ctl(self._uch, direction << 30 | len(arguments) << 26 | control, *arguments))

    def ctl_set_tcg_buffer_size(self, size: int) -> None:
        """Make room for ``size`` bytes of translated code."""
        self.ctl(UC_CTL_TCG_BUFFER_SIZE, UC_CTL_IO_WRITE, _U32(size))

    def ctl_exits_enabled(self, enable: bool) -> None:
        """Stop at a list of addresses, which is empty, instead of at a single one."""
        self.ctl(UC_CTL_UC_USE_EXITS, UC_CTL_IO_WRITE, ctypes.c_int(enable))

    def ctl_remove_cache(self, begin: int, end: int) -> None:
        """Drop the code translated from these addresses."""
        self.ctl(UC_CTL_TB_REMOVE_CACHE, UC_CTL_IO_WRITE, _U64(begin), _U64(end))

    def ctl_flush_tb(self) -> None:
        """Drop all translated code."""
        self.ctl(UC_CTL_TB_FLUSH, UC_CTL_IO_WRITE)


def _try(error: int) -> None:
    if error:
        raise UcError(error)
