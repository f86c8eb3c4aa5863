"""The syntax of single instructions, LLVM's and the kernel's (see ``asm``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from harness.isa import opcodes as o
from harness.isa.codec import REGISTERS
from harness.isa.helpers import HELPER_NUMBERS, HELPERS
from harness.isa.insn import (
    AddrSpaceCast,
    Alu,
    Atomic,
    Call,
    CallX,
    Endian,
    Exit,
    Goto,
    GotoX,
    Insn,
    Jump,
    Load,
    LoadImm,
    LoadPacket,
    MayGoto,
    PercpuAddr,
    Store,
    StoreImm,
)
from harness.isa.tokens import Token, TokenReader

_ALU = {symbol: op for op, symbol in o.ALU_SYMBOLS.items() if op != "mov"}
_JUMPS = {symbol: op for op, symbol in o.JUMP_SYMBOLS.items()}
_KINDS: Mapping[str, int] = {kind: number for number, kind in o.LD_IMM64_KINDS.items()}
_EXCHANGE = {"xchg_64": 8, "xchg32_32": 4, "cmpxchg_64": 8, "cmpxchg32_32": 4}
_REGISTER = re.compile(r"([rRwW])(0|[1-9][0-9]?)$")
_SIZE = re.compile(r"([us])(8|16|32|64)$")
_ENDIAN = re.compile(r"(le|be|bswap)(16|32|64)$")
_ATOMIC = re.compile(r"atomic(64)?_(?:fetch_(add|or|and|xor)|(xchg|cmpxchg))$")

Fix = Callable[[int, int], Insn]  # own slot and target slot to instruction


class InsnReader(TokenReader):
    """Reads an instruction from tokens; a subclass knows labels."""

    registers = REGISTERS  # how many there are

    def _wait(self, label: Token, fix: Fix, unless: Insn | None = None) -> Insn:
        """Return what stands for an instruction until *label* is known.

        *fix* makes the instruction then, and may raise ValueError; *unless* is meant
        where there is no such label.
        """
        raise NotImplementedError

    # --- operands -----------------------------------------------------------

    def _register(self, bits: int | None = None) -> tuple[int, int]:
        """Read a register; return its number and width, which *bits* prescribes."""
        token = self._token
        found = _REGISTER.match(token.text) if token.kind == "name" else None
        if not found:
            raise self._error(f"expected a register, found {self._found()}")
        self._next += 1
        number, width = int(found[2]), 64 if found[1] in "rR" else 32
        if number >= self.registers:
            raise self._error(f"there is no register {token.text}", token)
        if bits is not None and width != bits:
            raise self._error(f"expected a {bits}-bit register, found {token.text!r}", token)
        return number, width

    def _wide(self) -> int:
        return self._register(64)[0]

    def _is_register(self) -> bool:
        return self._token.kind == "name" and _REGISTER.match(self._token.text) is not None

    def _offset(self) -> int:
        """Read ``+ 8``, ``- 8`` or nothing after the base register of an address."""
        token = self._token
        if not (self._at("+") or self._at("-")):
            return 0
        off = self._expression()
        if not -0x8000 <= off < 0x8000:
            raise self._error(f"offset {off} does not fit 16 bits", token)
        return off

    def _type(self) -> tuple[bool, int]:
        """Read ``u64 *`` up to its closing parenthesis; return signedness and bytes."""
        token = self._take()
        found = _SIZE.match(token.text) if token.kind == "name" else None
        if not found or token.text == "s64":
            raise self._error(f"expected a type, found {token.text!r}", token)
        self._expect("*", ")")
        return found[1] == "s", int(found[2]) // 8

    def _unsigned(self) -> int:
        token = self._token
        signed, size = self._type()
        if signed:
            raise self._error("expected an unsigned type", token)
        return size

    def _address(self) -> tuple[int, int]:
        """Read ``(r1 + 8)``; return register and offset."""
        self._expect("(")
        base = self._wide()
        off = self._offset()
        self._expect(")")
        return base, off

    def _pointer(self) -> tuple[int, int, int]:
        """Read ``((u32 *)(r1 + 8)``, the head of an atomic; return bytes, register, offset."""
        self._expect("(", "(")
        size = self._unsigned()
        return size, *self._address()

    def _value(self, size: int) -> int:
        """Read a register that holds a value of *size* bytes: w or r, but of 64 bits only r."""
        return self._register(64 if size == 8 else None)[0]

    def _jump_offset(self, bits: int, make: Callable[[int], Insn]) -> Insn:
        """Read the target of a jump; return what *make* makes of its offset."""
        token = self._token

        def fix(slot: int, target: int) -> Insn:
            off = target - slot - 1
            if not -(1 << bits - 1) <= off < 1 << bits - 1:
                raise ValueError(f"{off} slots away does not fit {bits} bits; use gotol")
            return make(off)

        if token.kind in ("local", "string") or (token.kind == "name" and not self._at_pc()):
            self._next += 1
            return self._wait(token, fix)
        if token.kind == "name":
            self._next += 1
        off = self._expression()
        if not -(1 << bits - 1) <= off < 1 << bits - 1:
            raise self._error(f"offset {off} does not fit {bits} bits", token)
        return make(off)

    def _at_pc(self) -> bool:
        """Return whether ``pc+3`` or ``pc-3`` follows, and not a label of that name."""
        return self._at("pc") and self._ahead().text in ("+", "-")

    # --- instructions -------------------------------------------------------

    def _instruction(self, opcode: int | None) -> Insn:
        """Read an instruction; *opcode* is what the kernel's form wrote before it."""
        token = self._token
        if self._is_register():
            return self._assignment(opcode)
        if self._accept("*"):
            return self._store()
        if token.kind != "name":
            raise self._error(f"expected an instruction, found {self._found()}")
        self._next += 1
        match token.text:
            case "exit":
                return Exit()
            case "if":
                return self._branch()
            case "goto":
                return self._jump_offset(16, Goto)
            case "gotol":
                return self._jump_offset(32, lambda off: Goto(off, long=True))
            case "may_goto":
                return self._jump_offset(16, MayGoto)
            case "gotox":
                return GotoX(self._wide())
            case "call":
                return self._call()
            case "callx":
                return CallX(self._wide())
            case "lock":
                return self._lock()
            case "store_release":
                size, dst, off = self._pointer()
                self._expect(",")
                src = self._value(size)
                self._expect(")")
                return Atomic("store_release", size, dst, off, src)
            case "ld_pseudo":
                return self._pseudo()
        raise self._error(f"there is no instruction {token.text!r}", token)

    def _branch(self) -> Insn:
        dst, bits = self._register()
        token = self._token
        symbol = "s" + self._token.text if self._accept("s") else token.text
        op = _JUMPS.get(symbol)
        if op is None:
            raise self._error(f"expected a comparison, found {symbol!r}", token)
        self._next += 1
        src, imm = None, 0
        if self._is_register():
            src = self._register(bits)[0]
        else:
            imm = self._imm()
        self._expect("goto")
        return self._jump_offset(16, lambda off: Jump(op, bits, dst, src, imm, off))

    def _call(self) -> Insn:
        token = self._token
        if token.kind == "called":
            self._next += 1
            if token.text in ("unknown", HELPERS.get(token.value)):
                return Call("helper", token.value)
            return Call("kfunc", token.value)
        if self._at_pc():
            self._next += 1
            return Call("subprog", self._imm())
        if token.kind in ("name", "string", "local"):
            self._next += 1
            number = HELPER_NUMBERS.get(token.text)
            return self._wait(
                token,
                lambda slot, target: Call("subprog", target - slot - 1),
                None if number is None else Call("helper", number),
            )
        return Call("helper", self._imm())

    def _lock(self) -> Insn:
        self._expect("*", "(")
        size = self._unsigned()
        dst, off = self._address()
        token = self._take()
        op = _ALU.get(token.text)
        if op not in o.ATOMIC_OPS or size < 4:
            raise self._error(f"there is no atomic {token.text!r} of {8 * size} bits", token)
        return Atomic(op, size, dst, off, self._value(size))

    def _pseudo(self) -> Insn:
        dst = self._wide()
        self._expect(",")
        token = self._token
        kind = self._expression()
        if kind not in o.LD_IMM64_KINDS:
            raise self._error(
                f"ld_pseudo has kinds 0 to {max(o.LD_IMM64_KINDS)}, not {kind}", token
            )
        self._expect(",")
        return LoadImm(dst, kind, self._imm() & 0xFFFFFFFF)

    def _store(self) -> Insn:
        self._expect("(")
        size = self._unsigned()
        dst, off = self._address()
        self._expect("=")
        if self._is_register():
            return Store(size, dst, off, self._value(size))
        return StoreImm(size, dst, off, self._imm())

    def _assignment(self, opcode: int | None) -> Insn:
        """Read an instruction that begins with a register."""
        first = self._token
        dst, bits = self._register()
        if self._accept("="):
            return self._mov(dst, bits, first, opcode)
        token = self._take()
        symbol = token.text
        if symbol == "s":
            symbol += self._take().text
        if not symbol.endswith("=") and self._at("="):  # "+ =" is "+="
            symbol += self._take().text
        op = _ALU.get(symbol)
        if op is None:
            found = repr(symbol) if symbol else "the end of the line"
            raise self._error(f"expected an operator, found {found}", token)
        if self._is_register():
            return Alu(op, bits, dst, self._register(bits)[0])
        return Alu(op, bits, dst, None, self._imm())

    def _mov(self, dst: int, bits: int, first: Token, opcode: int | None) -> Insn:
        """Read what follows ``r1 =``."""
        token = self._token
        ahead = self._ahead()
        following = ahead.text
        if self._is_register():
            src, width = self._register(32 if bits == 32 else None)
            return Alu("mov", width, dst, src)  # clang writes "r1 = w2" for what zero-extends
        if token.text == "-" and _REGISTER.match(following):
            self._next += 1
            if self._register(bits)[0] != dst:
                raise self._error("a register can only be negated in place", ahead)
            return Alu("neg", bits, dst, None)
        if token.text == "(" and _SIZE.match(following):
            return self._movsx(dst, bits)
        if token.text == "*":
            self._next += 1
            return self._load(dst, bits, first)
        if token.text == "&":
            self._expect("&", "(", "void", "__percpu", "*", ")", "(")
            src = self._wide()
            self._expect(")")
            return PercpuAddr(dst, src)
        if token.kind == "name":
            if found := _ENDIAN.match(token.text):
                self._next += 1
                if bits != 64 or self._wide() != dst:
                    raise self._error("a byte swap is of a 64-bit register in place", first)
                return Endian(found[1], int(found[2]), dst)
            if following == "(":
                return self._function(dst, bits, first)
            return self._address_of(dst, bits, first)
        value = self._expression()
        if opcode == o.LD | o.IMM | o.SIZES[8] or self._accept("ll"):
            if bits != 64:
                raise self._error("a 64-bit immediate is loaded to a 64-bit register", first)
            return LoadImm(dst, 0, self._signed(value, 64, token) & 0xFFFFFFFFFFFFFFFF)
        return Alu("mov", bits, dst, None, self._signed(value, 32, token))

    def _movsx(self, dst: int, bits: int) -> Insn:
        self._expect("(")
        token = self._take()
        self._expect(")")
        src = self._register(bits)[0]
        if token.text not in ("s8", "s16", "s32")[: 2 + bits // 64]:
            raise self._error(f"there is no sign extension {token.text!r} to {bits} bits", token)
        return Alu("mov", bits, dst, src, 0, int(token.text[1:]))

    def _load(self, dst: int, bits: int, first: Token) -> Insn:
        """Read a load from memory or a packet, after its asterisk."""
        self._expect("(")
        signed, size = self._type()
        if bits == 32 and (signed or size == 8):
            raise self._error(f"this load fills a 64-bit register: write r{dst}", first)
        if not self._accept("skb"):
            return Load(size, dst, *self._address(), signed)
        if signed or size == 8 or dst:
            raise self._error("a packet load is of u8, u16 or u32 to r0", first)
        self._expect("[")
        if self._is_register():
            src = self._wide()
            at = self._token
            imm = self._signed(self._expression(), 32, at) if self._at("+") or self._at("-") else 0
            insn = LoadPacket("ind", size, src, imm)
        else:
            insn = LoadPacket("abs", size, 0, self._imm())
        self._expect("]")
        return insn

    def _function(self, dst: int, bits: int, first: Token) -> Insn:
        """Read ``name(...)``: what looks like a function is an instruction."""
        token = self._take()
        name = token.text
        if name == "addr_space_cast":
            self._expect("(")
            src = self._wide()
            self._expect(",")
            at = self._token
            to = self._expression()
            self._expect(",")
            come = self._expression()
            self._expect(")")
            if not (0 <= to < 1 << 16 and 0 <= come < 1 << 16) or bits != 64:
                raise self._error(
                    "address spaces are 16-bit numbers, and their pointers 64-bit", at
                )
            return AddrSpaceCast(dst, src, self._signed(to << 16 | come, 32, at))
        if name == "load_acquire":
            size, src, off = self._pointer()
            self._expect(")")
            self._agrees(bits, size, first)
            return Atomic("load_acquire", size, dst, off, src)
        if name in _EXCHANGE:
            size = _EXCHANGE[name]
            op = name.removesuffix("_64").removesuffix("32_32")
            self._expect("(")
            base, off = self._wide(), self._offset()
        elif found := _ATOMIC.match(name):
            size, base, off = self._pointer()
            op = found[2] or found[3]
            if size < 4 or (found[1] and size != 8):
                raise self._error(f"there is no {name} of {8 * size} bits", token)
        else:
            raise self._error(f"there is no instruction {name!r}", token)
        self._agrees(bits, size, first)
        self._expect(",")
        if op == "cmpxchg":
            at = self._token
            if dst or self._value(size):
                raise self._error(
                    "the value compared and returned is in r0", at if not dst else first
                )
            self._expect(",")
        at = self._token
        src = self._value(size)
        self._expect(")")
        if op != "cmpxchg" and src != dst:
            raise self._error("the operand and the result are one register", at)
        return Atomic(op, size, base, off, src, fetch=True)

    def _agrees(self, bits: int, size: int, first: Token) -> None:
        if size == 8 and bits == 32:
            raise self._error("a 64-bit atomic has 64-bit registers", first)

    def _address_of(self, dst: int, bits: int, first: Token) -> Insn:
        """Read ``name ll`` or bpftool's words for a ``LoadImm``."""
        token = self._take()
        if bits != 64:
            raise self._error("an address is loaded to a 64-bit register", first)
        if token.text in ("map", "btf", "subprog") and self._accept("["):
            return self._bpftool(dst, token)
        self._expect("ll")
        return self._wait(
            token,
            lambda slot, target: LoadImm(dst, o.PSEUDO_FUNC, target - slot - 1 & 0xFFFFFFFF),
        )

    def _bpftool(self, dst: int, word: Token) -> Insn:
        """Read the rest of map[id:5], map[id:5][0]+8, map[idx:5]+8, btf[id:5], subprog[+3]."""
        kind, high = "func", 0
        if word.text != "subprog":
            space = self._take()
            if space.text not in ("id", "idx") or (space.text, word.text) == ("idx", "btf"):
                raise self._error("expected id or idx", space)
            self._expect(":")
            kind = "btf_id" if word.text == "btf" else "map_fd" if space.text == "id" else "map_idx"
        low = self._imm()
        self._expect("]")
        if kind == "map_fd" and self._accept("["):
            self._expect_zero()
            self._expect("]")
            kind = "map_value"
            high = self._imm()
        elif kind == "map_idx" and self._at("+"):
            kind = "map_idx_value"
            high = self._imm()
        return LoadImm(dst, _KINDS[kind], (high & 0xFFFFFFFF) << 32 | low & 0xFFFFFFFF)

    def _expect_zero(self) -> None:
        if self._take().text != "0":
            raise self._error("expected 0")
