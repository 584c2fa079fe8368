import { describe, expect, test } from 'vitest';
import { V2Restore } from '../../src/v2/restore.ts';
import { V2Save } from '../../src/v2/save.ts';
import { V2 } from '../../src/v2/states.ts';
import { cut, join, noise } from '../support/bytes.ts';
import { v2Sim } from '../support/sims.ts';
import { SpyV2 } from '../support/spy-v2.ts';

const specs = ['qat', 'qat,size=300001', 'pds,size=70000', 'hisi,size=1M', 'mtty', 'mtty,ports=2'];

describe('V2Save and V2Restore', () => {
  const cases = specs.flatMap((spec) => [false, true].map((enomsg) => ({ spec, enomsg })));
  test.each(cases)('move $spec, the temporary end as ENOMSG: $enomsg', ({ spec, enomsg }) => {
    const [source, target] = [v2Sim(spec), v2Sim(spec)];
    source.bar.set(noise(source.bar.length, 5));
    const spy = new SpyV2(source.device, { enomsg });
    const pieces: Uint8Array[] = [];
    const save = new V2Save(spy, (piece) => pieces.push(piece.slice()));
    save.setup();
    while (save.iterate() > 0);
    source.bar[0] = 0xaa; // the guest writes during pre-copy
    save.stop();
    save.complete();
    expect(source.device.getState()).toBe(V2.STOP);
    expect(pieces).toBeBytes(spy.bytes('out'));
    expect(join(pieces)).toHaveLength(source.device.stopCopyLength());

    const restore = new V2Restore(target.device);
    restore.setup();
    for (const piece of cut(join(pieces), [3, 50_000, 1])) restore.load(piece);
    restore.complete();
    expect(target.device.getState()).toBe(V2.RUNNING);
    expect(target.bar).toBeBytes(source.bar);
  });
});
