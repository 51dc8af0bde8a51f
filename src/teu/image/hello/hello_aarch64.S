/* The program of the hello-world image for arm64; see hello_x86_64.S.
 *
 * Kernel interface: x8 number, x0 x1 x2 arguments, -errno in x0. */

        .set    SYS_write, 64
        .set    SYS_exit, 93
        .set    EINTR, 4

        .text
        .globl  _start
_start:
        adr     x19, message
        adr     x20, message_end
next:
        subs    x2, x20, x19
        b.eq    done
        mov     x8, #SYS_write
        mov     x0, #1
        mov     x1, x19
        svc     #0
        cmn     x0, #EINTR
        b.eq    next
        cmp     x0, #0
        b.le    failed
        add     x19, x19, x0            /* a pipe may take less than everything */
        b       next
failed:
        mov     x0, #1
        b       leave
done:
        mov     x0, #0
leave:
        mov     x8, #SYS_exit
        svc     #0

        .section .rodata
message:
        .incbin "message.txt"
message_end:

        .section .note.GNU-stack, "", %progbits
