/** The processors that a guest may have, by QEMU's names. */
export type Emulated = 'x86_64' | 'aarch64';

/** A machine as QEMU emulates it. */
export interface Machine {
  readonly options: string;
  /** For the kernel's command line. */
  readonly kernel: string;
}

/** An oops ends the guest, since nothing it says afterwards counts; slowness is no lockup. */
const KERNEL = 'quiet panic=-1 oops=panic nowatchdog nokaslr mitigations=off';
const OPTIONS = '-accel tcg,thread=multi,tb-size=512 -smp 2 -nodefaults -no-user-config -display none -no-reboot';

/**
 * KVM is not used, so that a guest is the same on every machine. neoverse-n1 has pages of 16 KiB, and not the pointer authentication
 * of `max`, which is slow to emulate.
 */
export const MACHINES: Readonly<Record<Emulated, Machine>> = {
  x86_64: { options: `-machine q35 -cpu max -m 2048 ${OPTIONS}`, kernel: `console=ttyS0 tsc=unstable ${KERNEL}` },
  aarch64: { options: `-machine virt -cpu neoverse-n1 -m 3072 ${OPTIONS}`, kernel: `console=ttyAMA0 ${KERNEL}` },
};
