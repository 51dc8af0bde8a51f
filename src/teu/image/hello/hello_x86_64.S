/* The program of the hello-world image: writes message.txt to standard output and exits.
 *
 * No C library: two system calls. Exit status 0 when everything was written, else 1.
 * Kernel interface: rax number, rdi rsi rdx arguments, -errno in rax. */

        .set    SYS_write, 1
        .set    SYS_exit, 60
        .set    EINTR, 4

        .text
        .globl  _start
_start:
        lea     message(%rip), %r12
        lea     message_end(%rip), %r13
next:
        mov     %r13, %rdx
        sub     %r12, %rdx
        jz      done
        mov     $SYS_write, %eax
        mov     $1, %edi
        mov     %r12, %rsi
        syscall
        cmp     $-EINTR, %rax
        je      next
        test    %rax, %rax
        jle     failed
        add     %rax, %r12              /* a pipe may take less than everything */
        jmp     next
failed:
        mov     $1, %edi
        jmp     leave
done:
        xor     %edi, %edi
leave:
        mov     $SYS_exit, %eax
        syscall

        .section .rodata
message:
        .incbin "message.txt"
message_end:

        .section .note.GNU-stack, "", @progbits
