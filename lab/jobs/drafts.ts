import { check } from '../guest/check.ts';
import { assertNatively, imprintNatively, runDraftClient } from '../guest/client.ts';
import { assertDraftMoves, DRAFTS, SECTION } from '../guest/drafts.ts';
import { Mtty } from '../guest/mtty.ts';

/** Programs of the two drafts on drivers of the kernel that speak v1 and v2. */

for (const draft of DRAFTS) {
  await check(`${draft} on v1 drivers, data accessed`, (bed) => assertDraftMoves(bed, draft, 'accessed'));
  await check(`${draft} on v1 drivers, data mapped`, (bed) => assertDraftMoves(bed, draft, 'mapped'));
  await check(`${draft} on v1 drivers, and back`, (bed) =>
    assertDraftMoves(bed, draft, 'accessed', { run: ['--round-trip'] }),
  );
}

for (const draft of DRAFTS) {
  await check(`${draft} on mtty`, async (bed) => {
    const [source, destination] = [Mtty.create(), Mtty.create()];
    await imprintNatively(source, 0x53);
    const file = bed.path('state');
    await runDraftClient(bed, 'saver', draft, ['save', file], source, SECTION);
    await runDraftClient(bed, 'restorer', draft, ['restore', file], destination, SECTION);
    await assertNatively(destination, 0x53);
  });
}
