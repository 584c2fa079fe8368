import type { V1Device } from '../../v1/device.ts';

/** A v1 device that passes everything on to another: for those that do something besides. */
export class PassedOnV1 implements V1Device {
  protected readonly device: V1Device;

  constructor(device: V1Device) {
    this.device = device;
  }

  get regionSize(): number {
    return this.device.regionSize;
  }

  get dataSection(): V1Device['dataSection'] {
    return this.device.dataSection;
  }

  get mapped(): Uint8Array | undefined {
    return this.device.mapped;
  }

  bufferAt(offset: number, length: number): Uint8Array | undefined {
    return this.device.bufferAt?.(offset, length);
  }

  read(offset: number, into: Uint8Array): void {
    this.device.read(offset, into);
  }

  write(offset: number, from: Uint8Array): void {
    this.device.write(offset, from);
  }

  reset(): void {
    this.device.reset();
  }
}
