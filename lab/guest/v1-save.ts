import type { V1Device } from '../../src/v1/device.ts';
import { V1Save } from '../../src/v1/save.ts';

/** All of a running v1 device's state, with pre-copy; it runs on. */
export function saveV1(device: V1Device, afterSetup: () => void = () => {}): Buffer {
  const pieces: Buffer[] = [];
  const saving = new V1Save(device, (piece) => void pieces.push(Buffer.from(piece)));
  saving.setup();
  afterSetup();
  while (saving.pending() > 0 && saving.iterate() > 0);
  saving.stop();
  saving.complete();
  saving.cancel();
  return Buffer.concat(pieces);
}
