/* A 32-bit program without a C library: prints READY, waits for its input to say something, and ends. */
__attribute__((used)) static char buffer[64];

__asm__(".text\n"
        ".globl _start\n"
        "_start:\n"
        "    mov $4, %eax\n"
        "    mov $1, %ebx\n"
        "    mov $greeting, %ecx\n"
        "    mov $6, %edx\n"
        "    int $0x80\n"
        "    mov $3, %eax\n"
        "    mov $0, %ebx\n"
        "    mov $buffer, %ecx\n"
        "    mov $64, %edx\n"
        "    int $0x80\n"
        "    mov $1, %eax\n"
        "    mov $0, %ebx\n"
        "    int $0x80\n"
        "greeting: .ascii \"READY\\n\"\n");
