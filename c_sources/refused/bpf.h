/* The few names that the refused programs need. */
#define SEC(name) __attribute__((section(name), used))
#define STATIC static __attribute__((noinline))
#define NAKED static __attribute__((naked, noinline, used))
#define ENTRY(name) SEC("syscall") __attribute__((naked)) int name(void *ctx)

SEC("license") static const char terms[] = "Dual BSD/GPL";
