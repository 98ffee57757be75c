"""Words of automatic host names: short, readable, kind.

Picked by hand: no word that insults, no colour of skin, body, bodily state, faith, nation, politics, drink, weapon or
illness, and none that turns rude beside a word of the other list, also where the hyphen is overlooked (a test
tries all pairs).
"""

from __future__ import annotations

# ruff: noqa: SIM905  a list of quoted words would be three pages long

ADJECTIVES = tuple(
    """
    able active adept agile airy alert alive amber ample apt arctic artful astral astute autumn awake aware balmy
    basic blithe bold bonny bouncy brainy brave breezy bright brisk bubbly buoyant busy calm candid careful
    caring casual central cheery chief chipper civic civil classic clean clear clever cloudy coastal cogent
    comfy coral cordial cosmic cozy crisp curious dainty dapper daring dawning deft devoted diligent
    distant dreamy driven eager early earnest easy elated elegant eloquent endless epic equal eternal even
    exact expert fabled fair faithful famous fancy fast fearless festive fine first fleet fluent flying fond
    formal frank free fresh friendly frosty frugal future gallant game generous genial gentle gifted glad
    gleaming global glowing golden good graceful gracious grand grateful great handy happy hardy hearty
    helpful heroic honest hopeful humble ideal indigo inland inner intent inventive iris ivory jaunty jolly
    jovial joyful jubilant just keen kind kindred kinetic lasting lavish leafy learned legal level light
    likely lilac lively local logical lofty loyal lucid lucky lunar lyric magic magnetic main major many
    mellow merry mighty mindful mint misty modern modest musical mutual neat nimble noble
    novel oaken orderly organic outer patient peaceful pearly peppy perky pioneer placid plain playful
    pleasant plucky poetic poised polar polite prime prompt proper proud prudent quick quiet quaint radiant
    rapid rare ready regal regular relaxed reliable restful robust rosy round royal rustic safe sage
    scenic serene sharing shining silent silken silver sincere skilful sleek smart smiling snowy
    snug social solar solid sound spare sparkly speedy splendid spry stable starry steady stellar
    still striking subtle summer sunlit sunny super superb sure swift tactful tall tender
    thankful thrifty tidy tiny tranquil true trusty unique upbeat urban useful valiant valid vast velvet
    vernal versatile vibrant vivid vocal warm watchful welcome whole willing windy winged winsome wintry
    wise witty wonder worthy zesty zippy
    """.split()
)

NOUNS = tuple(
    """
    acorn anchor anvil apple apricot aspen aster atlas aurora avenue badger bagel bakery
    bamboo banjo basil basin basket bay beacon bell birch bison blossom bluff boat bonsai book bough
    boulder breeze brick bridge brook buffalo cabin cactus camel candle canoe canyon caravan cedar
    cello chalet chart chestnut cinder circle citrus cliff clock cloud clover coast cobalt comet
    compass condor copper cotton cove coyote crane crater creek crest cricket crystal cypress daisy dale
    delta dingo dolphin dove dragon drum dune eagle echo eddy egret elk elm ember emu falcon fern
    ferry fiddle field finch fjord flame flint flute fog forest fountain fox fresco frog galaxy garden
    garnet gate gazelle gecko geyser ginger glacier glade glen globe goose gorge granite guitar gull
    hamlet harbor hare harp hawk hazel heath hedge heron hill hollow honey horizon hyacinth ibex ibis
    igloo iguana inlet island ivy jaguar jasmine jasper jay jigsaw juniper kayak
    kite kiwi koala ladder lagoon lake lamp lantern larch lark laurel lava lemon lemur library lily
    lime linden lion lobster lotus lynx magpie mango maple marble marlin marmot marsh meadow
    medley mesa meteor mill mimosa mirror moon moose mosaic moss moth mountain myrtle nebula needle nest
    newt nutmeg oak oasis oat oboe ocean olive onyx opal orange orbit orchard orchid oriole osprey ostrich
    otter owl oyster paddle palace palm panda paper parade park parrot pasture path pebble pelican
    pepper petal phoenix piano pigeon pillow pine pixel planet plaza plover plum poem polka pond pony
    poplar poppy prairie prism puffin pumpkin quail quartz quilt quiver rabbit radish raft rain
    rainbow ranch raven reef ribbon ridge river robin rose ruby saddle saffron sail salmon sandal
    sapphire shore signal sketch sky snow sonnet spark sparrow sphinx spring spruce
    squash star statue stone stork storm stream street sun swan tango teapot thicket thistle
    thrush tiger timber toast topaz torch tower trail train tulip tundra turnip turtle valley vessel viola
    violet violin walnut walrus waltz wave weaver whale wheat wheel willow wind window wombat wood
    wren yak yarn yarrow yew zebra zephyr zinnia
    """.split()
)
