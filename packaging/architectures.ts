/** A processor that packages are made for, by Node's name of it. */
export type Arch = 'x64' | 'arm64';

export const ARCHES: Readonly<Record<Arch, { readonly debian: string; readonly koffi: string }>> = {
  x64: { debian: 'amd64', koffi: 'linux_x64' },
  arm64: { debian: 'arm64', koffi: 'linux_arm64' },
};

export function isArch(text: string): text is Arch {
  return Object.hasOwn(ARCHES, text);
}
