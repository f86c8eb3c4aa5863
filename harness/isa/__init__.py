"""The BPF instruction set: values, codec, text, and the stack-argument ABI."""
