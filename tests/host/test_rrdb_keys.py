import torch
from basicsr.archs import build_network

from basicsr_distill.host.patches.checkpoints import convert_rrdb_state_dict

OLD_NAMES = {
    'body': 'RRDB_trunk',
    'conv_body': 'trunk_conv',
    'conv_hr': 'HRconv',
    'conv_up1': 'upconv1',
    'conv_up2': 'upconv2',
}


def rrdb(num_block: int = 2) -> torch.nn.Module:
    return build_network(
        {'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': num_block, 'num_grow_ch': 2}
    )


def test_an_official_key_of_each_kind():
    old = (
        'conv_first.weight',
        'RRDB_trunk.22.RDB3.conv5.bias',
        'trunk_conv.weight',
        'upconv1.weight',
        'upconv2.bias',
        'HRconv.weight',
        'conv_last.bias',
    )
    new = (
        'conv_first.weight',
        'body.22.rdb3.conv5.bias',
        'conv_body.weight',
        'conv_up1.weight',
        'conv_up2.bias',
        'conv_hr.weight',
        'conv_last.bias',
    )
    assert tuple(convert_rrdb_state_dict(dict.fromkeys(old))) == new


def test_an_old_checkpoint_loads_and_gives_the_same_output():
    torch.manual_seed(0)
    trained, fresh = rrdb().eval(), rrdb().eval()
    old = {}
    for key, value in trained.state_dict().items():
        place, *rest = key.split('.')
        old['.'.join([OLD_NAMES.get(place, place), *rest]).replace('.rdb', '.RDB')] = value
    assert 'RRDB_trunk.1.RDB3.conv5.bias' in old and 'HRconv.weight' in old
    fresh.load_state_dict(convert_rrdb_state_dict(old), strict=True)
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(fresh(x), trained(x))


def test_new_and_foreign_keys_are_left_alone():
    new = rrdb().state_dict()
    converted = convert_rrdb_state_dict(new)
    assert list(converted) == list(new) and all(converted[key] is value for key, value in new.items())
    foreign = dict.fromkeys(('my_upconv1.weight', 'my_trunk_conv.weight', 'my_HRconv.bias', 'module.trunk_conv.weight'))
    assert list(convert_rrdb_state_dict(foreign)) == [*list(foreign)[:3], 'module.conv_body.weight']
