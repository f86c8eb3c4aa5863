"""Opcode fields and numbers of the BPF instruction set, by section of RFC 9669."""

from __future__ import annotations

# fmt: off
# Instruction classes: opcode & 7                 RFC 9669, section 3.2
LD, LDX, ST, STX, ALU, JMP, JMP32, ALU64 = range(8)

# Operand source: opcode & 8                      RFC 9669, section 4
K, X = 0x00, 0x08

# Arithmetic: opcode & 0xf0                       RFC 9669, section 4.1
ALU_OPS = {
    "add": 0x00, "sub":  0x10, "mul": 0x20, "div": 0x30,
    "or":  0x40, "and":  0x50, "lsh": 0x60, "rsh": 0x70,
    "neg": 0x80, "mod":  0x90, "xor": 0xA0, "mov": 0xB0,
    "arsh": 0xC0,
}
SIGNED_ALU_OPS = {"sdiv": 0x30, "smod": 0x90}  # offset field 1
END = 0xD0                                     # byte swaps, section 4.2
ENDIAN_OPS = {"le": ALU | END | K, "be": ALU | END | X, "bswap": ALU64 | END | K}
ADDR_SPACE_CAST, ADDR_PERCPU = 1, -1           # offset field of mov64

# As LLVM and the kernel write them
ALU_SYMBOLS = {
    "add": "+=", "sub":  "-=",  "mul":  "*=",  "div": "/=",  "or":  "|=",
    "and": "&=", "lsh":  "<<=", "rsh":  ">>=", "mod": "%=",  "xor": "^=",
    "mov": "=",  "arsh": "s>>=", "sdiv": "s/=", "smod": "s%=",
}
JUMP_SYMBOLS = {
    "eq":  "==", "gt":  ">",   "ge": ">=", "set": "&",  "ne":  "!=",
    "sgt": "s>", "sge": "s>=", "lt": "<",  "le":  "<=", "slt": "s<", "sle": "s<=",
}

# Jumps: opcode & 0xf0                            RFC 9669, section 4.3
JUMP_OPS = {
    "eq":  0x10, "gt":  0x20, "ge":  0x30, "set": 0x40, "ne":  0x50,
    "sgt": 0x60, "sge": 0x70, "lt":  0xA0, "le":  0xB0, "slt": 0xC0, "sle": 0xD0,
}
JA, CALL, EXIT, JCOND = 0x00, 0x80, 0x90, 0xE0
CALL_KINDS = {"helper": 0, "subprog": 1, "kfunc": 2}  # source field of CALL

# Loads and stores: mode opcode & 0xe0, size & 0x18  RFC 9669, section 5
IMM, ABS, IND, MEM, MEMSX, ATOMIC = 0x00, 0x20, 0x40, 0x60, 0x80, 0xC0
PACKET_MODES = {"abs": ABS, "ind": IND}
SIZES = {4: 0x00, 2: 0x08, 1: 0x10, 8: 0x18}          # bytes: field

# Atomics: the immediate                          RFC 9669, section 5.3
ATOMIC_OPS = {"add": 0x00, "or": 0x40, "and": 0x50, "xor": 0xA0}
FETCH = 0x01
XCHG, CMPXCHG = 0xE0 | FETCH, 0xF0 | FETCH
LOAD_ACQUIRE, STORE_RELEASE = 0x100, 0x110            # Linux 6.15
ORDERED_OPS = ("load_acquire", "store_release")       # also of 1 and 2 bytes

# ld_imm64 kinds: the source field                RFC 9669, section 5.4
LD_IMM64_KINDS = {
    0: "value",       # imm64
    1: "map_fd",      # map by file descriptor
    2: "map_value",   # value of a map by file descriptor, plus next_imm
    3: "btf_id",      # address of a kernel variable
    4: "func",        # address of a subprogram, relative in slots
    5: "map_idx",     # map by index into Program.maps
    6: "map_idx_value",  # value of a map by index, plus next_imm
}
PSEUDO_FUNC = 4
# fmt: on

MAX_INSNS = 1_000_000  # BPF_COMPLEXITY_LIMIT_INSNS, also the longest program
