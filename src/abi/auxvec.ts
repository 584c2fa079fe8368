/** The entry of the auxiliary vector that says how large a page is (linux/auxvec.h). */
export const AT_PAGESZ = 6;
/** That of the address of 16 random bytes, which every program gets that a process begins. */
export const AT_RANDOM = 25;
