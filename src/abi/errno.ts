import { constants } from 'node:os';

/** Errnos that Node has no name for (asm-generic/errno-base.h, errno.h), and the kernel's internal ENOTSUPP (linux/errno.h), which drivers let escape. */
const more = {
  ENOTBLK: 15,
  ECHRNG: 44,
  EL2NSYNC: 45,
  EL3HLT: 46,
  EL3RST: 47,
  ELNRNG: 48,
  EUNATCH: 49,
  ENOCSI: 50,
  EL2HLT: 51,
  EBADE: 52,
  EBADR: 53,
  EXFULL: 54,
  ENOANO: 55,
  EBADRQC: 56,
  EBADSLT: 57,
  EBFONT: 59,
  ENONET: 64,
  ENOPKG: 65,
  EREMOTE: 66,
  EADV: 68,
  ESRMNT: 69,
  ECOMM: 70,
  EDOTDOT: 73,
  ENOTUNIQ: 76,
  EBADFD: 77,
  EREMCHG: 78,
  ELIBACC: 79,
  ELIBBAD: 80,
  ELIBSCN: 81,
  ELIBMAX: 82,
  ELIBEXEC: 83,
  ERESTART: 85,
  ESTRPIPE: 86,
  EUSERS: 87,
  ESOCKTNOSUPPORT: 94,
  EPFNOSUPPORT: 96,
  ESHUTDOWN: 108,
  ETOOMANYREFS: 109,
  EHOSTDOWN: 112,
  EUCLEAN: 117,
  ENOTNAM: 118,
  ENAVAIL: 119,
  EISNAM: 120,
  EREMOTEIO: 121,
  ENOMEDIUM: 123,
  EMEDIUMTYPE: 124,
  ENOKEY: 126,
  EKEYEXPIRED: 127,
  EKEYREVOKED: 128,
  EKEYREJECTED: 129,
  EOWNERDEAD: 130,
  ENOTRECOVERABLE: 131,
  ERFKILL: 132,
  EHWPOISON: 133,
  ENOTSUPP: 524,
} as const;

/** The errno names that the kernel's interfaces use. */
export type ErrnoName = Extract<keyof typeof constants.errno, string> | keyof typeof more;

const numbers: Readonly<Record<ErrnoName, number>> = { ...constants.errno, ...more };
/** Second names of EOPNOTSUPP and EAGAIN, which the kernel itself does not use. */
const aliases = new Set(['ENOTSUP', 'EWOULDBLOCK']);
const names = new Map(
  Object.entries(numbers)
    .filter(([name]) => !aliases.has(name))
    .map(([name, number]) => [number, name as ErrnoName]),
);

/** The number of an errno name on this system. */
export function errnoNumber(name: ErrnoName): number {
  return numbers[name];
}

/** The kernel's name of an errno number; `undefined` for a number that it has no name for. */
export function errnoName(number: number): ErrnoName | undefined {
  return names.get(number);
}
