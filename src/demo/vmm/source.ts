import { V1Save } from '../../v1/save.ts';
import { StreamWriter } from '../../qemu-stream/stream-writer.ts';
import { hear, send, Word } from './channel.ts';
import type { FdDevice } from './fd-device.ts';
import { Guest } from './guest.ts';
import { tell } from './steps.ts';

/** How often the guest writes again while pre-copy runs, and how much. */
const ROUNDS = 4;
const PAGES = 64;

const END = StreamWriter.record({ tag: 'END_OF_STATE' });

/** Migrates the device away while its guest goes on writing, in QEMU's order and with QEMU's records. */
export function migrateAway(device: FdDevice): void {
  const guest = new Guest(device.bar);
  guest.writeAll();
  tell({ step: 'guest wrote', bytes: device.bar.length, during: 'running' });
  hear(Word.READY);
  const save = new V1Save(device, (buffer) => send(StreamWriter.record({ tag: 'DEV_DATA_STATE', bytes: buffer })));
  try {
    save.setup();
    send(StreamWriter.setupSection());
    let bytes = 0;
    for (let round = 0; round < ROUNDS; round += 1) {
      bytes += guest.writeSome(PAGES);
      save.iterate();
      send(END);
    }
    tell({ step: 'guest wrote', bytes, during: 'pre-copy' });
    tell({ step: 'stopped' });
    save.stop();
    save.complete();
    send(END);
    send(StreamWriter.configSection(device.config));
    hear(Word.LOADED);
  } catch (error) {
    save.cancel(); // the guest goes on here
    throw error;
  }
  tell({ step: 'guest memory', bytes: device.bar.length, sha256: guest.written });
}
