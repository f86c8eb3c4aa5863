"""What refusals are known to come from, as buckets and known.toml name it."""

from __future__ import annotations

# fmt: off
WIDE    = "a value of two slots"
REMOVED = "a parameter that clang took out"
ADDED   = "a parameter that clang made of a pointer"
BEYOND  = "an argument beyond the twelfth that clang made of a pointer"
SHRUNK  = "a variable that clang made smaller than its type"
UNREAD  = "an undefined register in a slot for no value"
UNSET   = "no value for an argument of a global function"
BARE    = "no store to a slot for no value"
BLANK   = "an undefined register that clang goes on from"
OR      = "|= in place of += on an address"
BOOL    = "an index made of a bool"
MASK    = "an index whose mask clang left out"
VOID    = "r0 of a function without a result"
TWO     = "a result of two registers"
FRAMES  = "frames of more than 512 bytes"
HALF    = "a value in a part of a stack slot"
# fmt: on
CONSTRUCTS = (
    WIDE,
    REMOVED,
    ADDED,
    BEYOND,
    SHRUNK,
    UNREAD,
    UNSET,
    BARE,
    BLANK,
    OR,
    BOOL,
    MASK,
    VOID,
    TWO,
    FRAMES,
    HALF,
)  # fmt: skip
