/* int80: exit status 0 where this host answers 32-bit system calls. Where its kernel has none, `int 0x80` is SIGSEGV. */
#include <unistd.h>

int main(void) {
#ifdef __x86_64__
    long result;

    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L /* getpid */) : "memory", "r8", "r9", "r10", "r11");
    return result == getpid() ? 0 : 1;
#else
    return 1;
#endif
}
