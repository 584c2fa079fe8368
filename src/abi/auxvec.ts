/** The entry of the auxiliary vector that says how large a page is (linux/auxvec.h). */
export const AT_PAGESZ = 6;
